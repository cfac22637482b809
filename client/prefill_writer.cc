#include "client/prefill_writer.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/logging.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "client/chunk_sizes.h"
#include "client/shared_memory.h"
#include "client/wire/bulk_message.h"
#include "client/wire/spec_conversion.h"
#include "client/wire/store_call.h"

namespace turbokv {
namespace {

constexpr absl::Duration kSlotPatience = absl::Milliseconds(100);

// Lets a writer wait until gRPC has let go of the memory that slices borrowed from a caller.
class Loan {
 public:
  Loan() : state_(std::make_shared<State>()) {
    token_ = std::shared_ptr<const void>(state_.get(), [state = state_](const void*) {
      MutexLock lock(&state->mutex);
      state->returned = true;
      state->changed.notify_all();
    });
  }

  const std::shared_ptr<const void>& token() const { return token_; }

  void WaitForReturn() {
    token_.reset();
    MutexLock lock(&state_->mutex);
    while (!state_->returned) state_->changed.wait(state_->mutex);
  }

 private:
  struct State {
    Mutex mutex;
    CondVar changed;
    bool returned ABSL_GUARDED_BY(mutex) = false;
  };
  std::shared_ptr<State> state_;
  std::shared_ptr<const void> token_;
};

struct StoreScope {
  int64_t first_token = 0;
  int64_t tokens = 0;  // that are sent
  bool with_tail = false;
};

absl::StatusOr<StoreScope> ScopeOf(int64_t all_tokens, const StoreOptions& options,
                                   bool with_tail) {
  if (options.chunk_bytes < kMinChunkBytes || options.chunk_bytes > kMaxChunkBytes) {
    return absl::InvalidArgumentError(absl::StrCat("chunk_bytes is ", options.chunk_bytes,
                                                   "; expected ", kMinChunkBytes, "..",
                                                   kMaxChunkBytes));
  }
  if (options.first_token < 0 || options.first_token % kPageTokens != 0) {
    return absl::InvalidArgumentError(absl::StrCat("first_token is ", options.first_token,
                                                   "; expected a multiple of ", kPageTokens));
  }
  const int64_t end = with_tail ? all_tokens : all_tokens / kPageTokens * kPageTokens;
  if (end <= options.first_token) {
    return absl::InvalidArgumentError(absl::StrCat(
        "nothing to store: ", all_tokens, " tokens, first_token ", options.first_token,
        with_tail ? "" : ", and only full blocks of 128 tokens are sent without a tail"));
  }
  return StoreScope{options.first_token, end - options.first_token, with_tail};
}

// Copies tokens [begin, begin + count) of K or V into [tokens][kv_heads][head_dim].
void GatherTokens(const void* values, const KvView& kv, int kv_heads, size_t head_bytes,
                  int64_t begin, int count, uint8_t* out) {
  const auto* source = static_cast<const uint8_t*>(values);
  const ptrdiff_t token_bytes = kv.token_stride * static_cast<ptrdiff_t>(ValueBytes(kv.type));
  const ptrdiff_t head_stride_bytes = kv.head_stride * static_cast<ptrdiff_t>(ValueBytes(kv.type));
  const bool heads_adjacent = head_stride_bytes == static_cast<ptrdiff_t>(head_bytes);
  if (heads_adjacent && token_bytes == static_cast<ptrdiff_t>(head_bytes * kv_heads)) {
    std::memcpy(out, source + begin * token_bytes, count * head_bytes * kv_heads);
    return;
  }
  for (int64_t token = begin; token < begin + count; ++token) {
    for (int head = 0; head < kv_heads; ++head, out += head_bytes) {
      std::memcpy(out, source + token * token_bytes + head * head_stride_bytes, head_bytes);
    }
  }
}

}  // namespace

class PrefillWriter::Impl {
 public:
  Impl(std::shared_ptr<CacheChannel> channel, std::shared_ptr<const ResolvedSpec> spec,
       const StoreOptions& options, int64_t kv_tokens, const StoreScope& scope, bool pages)
      : spec_(std::move(spec)),
        chunk_bytes_(options.chunk_bytes),
        kv_tokens_(kv_tokens),
        scope_(scope),
        pages_(pages),
        deadline_(absl::Now() + options.timeout),
        channel_(std::move(channel)),
        call_(std::make_unique<StoreCall>(channel_, options.timeout)) {
    UseSharedMemory();
  }

  ~Impl() {
    if (call_ != nullptr) DropSharedMemory();
    call_.reset();  // cancels an unfinished store
    loan_.WaitForReturn();
  }

  absl::Status SendOpen(absl::Span<const Digest> block_keys, const Digest* tail_key) {
    v1::StoreRequest request;
    v1::StoreOpen* open = request.mutable_open();
    *open->mutable_spec() = ToProto(spec_->spec);
    open->set_encoding(pages_ ? v1::STORE_ENCODING_PAGES : v1::STORE_ENCODING_RAW);
    open->set_first_token(scope_.first_token);
    open->set_token_count(scope_.tokens);
    open->set_block_keys(block_keys.data(), block_keys.size() * sizeof(Digest));
    if (tail_key != nullptr) open->set_tail_key(tail_key->data(), tail_key->size());
    if (staging_ != nullptr) open->set_share_session(memory_->session_id());
    return call_->Write(BuildBulkMessage(request, {}));
  }

  absl::Status WriteLayer(int layer, const KvView& kv) {
    TURBOKV_RETURN_IF_ERROR(CheckLayer(layer, /*pages=*/false));
    if (kv.type != spec_->spec.source_type) {
      return absl::InvalidArgumentError(absl::StrCat("layer ", layer, ": K/V of value type ",
                                                     static_cast<int>(kv.type), ", the spec has ",
                                                     static_cast<int>(spec_->spec.source_type)));
    }
    if (kv.tokens != kv_tokens_) {
      return absl::InvalidArgumentError(absl::StrCat("layer ", layer, ": K/V of ", kv.tokens,
                                                     " tokens, expected ", kv_tokens_,
                                                     " (all from first_token on)"));
    }
    const size_t token_bytes = spec_->raw_token_bytes();
    const int step =
        static_cast<int>(std::clamp<size_t>(ChunkBytes() / token_bytes, 1, kPageTokens));
    for (int64_t begin = 0; begin < scope_.tokens;) {
      const int64_t page_end = (begin / kPageTokens + 1) * kPageTokens;
      const int count =
          static_cast<int>(std::min<int64_t>(step, std::min(page_end, scope_.tokens) - begin));
      TURBOKV_RETURN_IF_ERROR(WriteTokens(layer, kv, begin, count));
      begin += count;
    }
    return absl::OkStatus();
  }

  absl::Status WritePage(int layer, int64_t block, absl::Span<const uint8_t> page) {
    TURBOKV_RETURN_IF_ERROR(CheckLayer(layer, /*pages=*/true));
    const size_t page_bytes = spec_->layer_layouts[layer].page_bytes;
    if (page.size() != page_bytes) {
      return absl::InvalidArgumentError(absl::StrCat("layer ", layer, ", block ", block,
                                                     ": page of ", page.size(), " bytes, expected ",
                                                     page_bytes));
    }
    for (size_t offset = 0; offset < page_bytes; offset += ChunkBytes()) {
      v1::StoreRequest request;
      v1::StoreChunk* chunk = request.mutable_chunk();
      chunk->set_layer(layer);
      chunk->set_block_index(block);
      chunk->set_page_offset(offset);
      const absl::Span<const uint8_t> piece = page.subspan(offset, ChunkBytes());
      if (staging_ == nullptr) {
        TURBOKV_RETURN_IF_ERROR(Send(request, BorrowedSlice(piece, loan_.token())));
        continue;
      }
      TURBOKV_RETURN_IF_ERROR(Stage(&request, piece.size(), [&](uint8_t* out) {
        std::memcpy(out, piece.data(), piece.size());
      }));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<StoreResult> Finish() {
    if (call_ == nullptr) return AlreadyFinished();
    const absl::StatusOr<v1::StoreResponse> response = call_->Finish();
    if (!response.ok()) DropSharedMemory();
    call_.reset();  // a call that failed keeps the message it could not send
    loan_.WaitForReturn();
    if (!response.ok()) return response.status();
    StoreResult result = ToStoreResult(*response);
    result.sent_bytes = sent_bytes_;
    result.road = staging_ != nullptr ? Road::kShm : Road::kGrpc;
    return result;
  }

 private:
  void UseSharedMemory() {
    memory_ = channel_->shared_memory();
    if (memory_ == nullptr) return;
    const absl::StatusOr<StagingClient*> staging = memory_->Staging();
    if (staging.ok()) {
      staging_ = *staging;
    } else {
      LogWarning("a store goes by gRPC instead of shared memory",
                 {{"reason", staging.status().message()}});
    }
  }

  // Slots that were announced to a store that failed are not given back.
  void DropSharedMemory() {
    if (staging_ != nullptr) channel_->DropSharedMemory(memory_.get());
  }

  size_t ChunkBytes() const {
    return staging_ == nullptr ? chunk_bytes_ : staging_->geometry().slot_bytes;
  }

  // Sends `bytes` that `fill` writes by a slot of the shared memory.
  absl::Status Stage(v1::StoreRequest* request, size_t bytes,
                     const std::function<void(uint8_t*)>& fill) {
    TURBOKV_ASSIGN_OR_RETURN(StagingSlot slot, AcquireSlot());
    fill(slot.bytes().data());
    v1::StagedBytes* staged = request->mutable_chunk()->mutable_staged();
    staged->set_slot(slot.index());
    staged->set_size(bytes);
    std::move(slot).Announce();
    sent_bytes_ += static_cast<int64_t>(bytes);
    return call_->Write(BuildBulkMessage(*request, {}));
  }

  // A server that has ended the store gives no slot back: the call is looked at meanwhile.
  absl::StatusOr<StagingSlot> AcquireSlot() {
    while (true) {
      absl::StatusOr<StagingSlot> slot =
          staging_->AcquireSlot(std::min(deadline_, absl::Now() + kSlotPatience));
      if (!absl::IsDeadlineExceeded(slot.status()) || absl::Now() >= deadline_) return slot;
      TURBOKV_RETURN_IF_ERROR(call_->CheckOpen());
    }
  }

  static absl::Status AlreadyFinished() {
    return absl::FailedPreconditionError("the store is finished");
  }

  absl::Status CheckLayer(int layer, bool pages) const {
    if (call_ == nullptr) return AlreadyFinished();
    if (pages != pages_) {
      return absl::FailedPreconditionError(pages_ ? "this writer takes pages: use WritePage"
                                                  : "this writer takes K/V: use WriteLayer");
    }
    if (layer >= 0 && layer < spec_->spec.layers) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("layer is ", layer, "; the spec has ", spec_->spec.layers));
  }

  absl::Status WriteTokens(int layer, const KvView& kv, int64_t begin, int count) {
    v1::StoreRequest request;
    v1::StoreChunk* chunk = request.mutable_chunk();
    chunk->set_layer(layer);
    chunk->set_token_offset(begin);
    chunk->set_token_count(count);
    const int kv_heads = spec_->spec.kv_heads;
    const size_t head_bytes = spec_->spec.head_dim * ValueBytes(kv.type);
    const size_t tensor_bytes = count * kv_heads * head_bytes;
    const auto gather = [&](uint8_t* out) {
      GatherTokens(kv.k, kv, kv_heads, head_bytes, begin, count, out);
      GatherTokens(kv.v, kv, kv_heads, head_bytes, begin, count, out + tensor_bytes);
    };
    if (staging_ != nullptr) return Stage(&request, 2 * tensor_bytes, gather);
    grpc::Slice slice(2 * tensor_bytes);
    gather(const_cast<uint8_t*>(slice.begin()));
    return Send(request, slice);
  }

  absl::Status Send(const v1::StoreRequest& request, const grpc::Slice& slice) {
    sent_bytes_ += static_cast<int64_t>(slice.size());
    return call_->Write(BuildBulkMessage(request, {&slice, 1}));
  }

  const std::shared_ptr<const ResolvedSpec> spec_;
  const size_t chunk_bytes_;
  const int64_t kv_tokens_;  // tokens of the views that WriteLayer takes
  const StoreScope scope_;
  const bool pages_;
  int64_t sent_bytes_ = 0;
  Loan loan_;
  const absl::Time deadline_;
  const std::shared_ptr<CacheChannel> channel_;
  std::shared_ptr<SharedMemory> memory_;
  StagingClient* staging_ = nullptr;  // memory_'s; null: bytes go by gRPC
  std::unique_ptr<StoreCall> call_;
};

namespace {

absl::Status CheckTailIsSent(int64_t all_tokens, int64_t first_token) {
  const int64_t tail_begin = PackedBlocks(all_tokens) * kPageTokens;
  if (first_token <= tail_begin) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "first_token ", first_token, " lies inside the tail, which begins at token ", tail_begin,
      " of ", all_tokens, ": send from there on, or set store_tail to false"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<PrefillWriter>> PrefillWriter::Open(
    std::shared_ptr<CacheChannel> channel, std::shared_ptr<const ResolvedSpec> spec,
    absl::Span<const int32_t> token_ids, const StoreOptions& options) {
  const int64_t all_tokens = static_cast<int64_t>(token_ids.size());
  TURBOKV_ASSIGN_OR_RETURN(const StoreScope scope,
                           ScopeOf(all_tokens, options, options.store_tail));
  if (scope.with_tail) {
    TURBOKV_RETURN_IF_ERROR(CheckTailIsSent(all_tokens, scope.first_token));
  }
  const std::vector<Digest> keys = BlockKeys(spec->fingerprint, options.salt, token_ids);
  const Digest tail_key = TailKey(spec->fingerprint, options.salt, keys, token_ids);
  auto impl = std::make_unique<Impl>(std::move(channel), std::move(spec), options,
                                     all_tokens - scope.first_token, scope, /*pages=*/false);
  TURBOKV_RETURN_IF_ERROR(
      impl->SendOpen(absl::MakeConstSpan(keys).subspan(scope.first_token / kPageTokens),
                     scope.with_tail ? &tail_key : nullptr));
  return std::unique_ptr<PrefillWriter>(new PrefillWriter(std::move(impl)));
}

absl::StatusOr<std::unique_ptr<PrefillWriter>> PrefillWriter::OpenPages(
    std::shared_ptr<CacheChannel> channel, std::shared_ptr<const ResolvedSpec> spec,
    absl::Span<const int32_t> token_ids, const StoreOptions& options) {
  TURBOKV_ASSIGN_OR_RETURN(const StoreScope scope,
                           ScopeOf(static_cast<int64_t>(token_ids.size()), options, false));
  const std::vector<Digest> keys = BlockKeys(spec->fingerprint, options.salt, token_ids);
  auto impl = std::make_unique<Impl>(std::move(channel), std::move(spec), options, 0, scope,
                                     /*pages=*/true);
  TURBOKV_RETURN_IF_ERROR(
      impl->SendOpen(absl::MakeConstSpan(keys).subspan(scope.first_token / kPageTokens), nullptr));
  return std::unique_ptr<PrefillWriter>(new PrefillWriter(std::move(impl)));
}

PrefillWriter::PrefillWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PrefillWriter::~PrefillWriter() = default;

absl::Status PrefillWriter::WriteLayer(int layer, const KvView& kv) {
  return impl_->WriteLayer(layer, kv);
}

absl::Status PrefillWriter::WritePage(int layer, int64_t block, absl::Span<const uint8_t> page) {
  return impl_->WritePage(layer, block, page);
}

absl::StatusOr<StoreResult> PrefillWriter::Finish() { return impl_->Finish(); }

}  // namespace turbokv
