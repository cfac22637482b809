#include "client/nccl/nccl_prefill.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/nccl/outstanding_transfers.h"
#include "client/wire/bulk_message.h"
#include "client/wire/spec_conversion.h"
#include "client/wire/store_call.h"

namespace turbokv {
namespace {

constexpr size_t kMaxRunBlocks = 4096;  // NcclRun.block_count

// What of every layer goes which way.
struct Scope {
  int64_t first_token = 0;
  int64_t run_blocks = 0;
  int64_t rest_tokens = 0;
  bool with_tail = false;

  int64_t tokens() const { return run_blocks * kPageTokens + rest_tokens; }
};

absl::StatusOr<Scope> ScopeOf(int64_t all_tokens, const StoreOptions& options, bool with_tail) {
  if (options.first_token < 0 || options.first_token % kPageTokens != 0) {
    return absl::InvalidArgumentError(absl::StrCat("first_token is ", options.first_token,
                                                   "; expected a multiple of ", kPageTokens));
  }
  const int64_t packed_blocks = with_tail ? PackedBlocks(all_tokens) : all_tokens / kPageTokens;
  const int64_t end = with_tail ? all_tokens : packed_blocks * kPageTokens;
  const int64_t run_blocks = packed_blocks - options.first_token / kPageTokens;
  if (run_blocks < 0 || end <= options.first_token) {
    return absl::InvalidArgumentError(
        absl::StrCat("first_token is ", options.first_token, "; of ", all_tokens,
                     " tokens, whole pages end at ", packed_blocks * kPageTokens,
                     with_tail ? ", where the tail begins" : " and there is no tail"));
  }
  return Scope{options.first_token, run_blocks,
               end - options.first_token - run_blocks * kPageTokens, with_tail};
}

}  // namespace

class NcclPrefill::Impl {
 public:
  Impl(std::shared_ptr<CacheChannel> channel, std::shared_ptr<NcclLink> link,
       std::shared_ptr<const ResolvedSpec> spec, const StoreOptions& options, const Scope& scope,
       bool pages)
      : link_(std::move(link)),
        spec_(std::move(spec)),
        chunk_bytes_(options.chunk_bytes),
        scope_(scope),
        pages_(pages),
        call_(std::make_unique<StoreCall>(std::move(channel), options.timeout)) {}

  ~Impl() {
    if (call_ != nullptr && announced_) link_->channel()->Abort("a store was cancelled");
    call_.reset();
    sends_.Wait().IgnoreError();  // until then the device reads the caller's memory
  }

  const Scope& scope() const { return scope_; }

  absl::Status SendOpen(absl::Span<const int32_t> token_ids, absl::string_view salt) {
    const std::vector<Digest> all_keys = BlockKeys(spec_->fingerprint, salt, token_ids);
    const auto keys = absl::MakeConstSpan(all_keys).subspan(scope_.first_token / kPageTokens);
    v1::StoreRequest request;
    v1::StoreOpen* open = request.mutable_open();
    *open->mutable_spec() = ToProto(spec_->spec);
    open->set_encoding(pages_ ? v1::STORE_ENCODING_PAGES : v1::STORE_ENCODING_RAW);
    open->set_first_token(scope_.first_token);
    open->set_token_count(scope_.tokens());
    open->set_block_keys(keys.data(), keys.size() * sizeof(Digest));
    if (scope_.with_tail) {
      const Digest tail_key = TailKey(spec_->fingerprint, salt, all_keys, token_ids);
      open->set_tail_key(tail_key.data(), tail_key.size());
    }
    open->set_nccl_channel_id(link_->channel_id());
    return Write(request, {});
  }

  absl::Status WriteLayer(int layer, const uint8_t* device_k, const uint8_t* device_v,
                          const KvView& rest) {
    TURBOKV_RETURN_IF_ERROR(CheckLayer(layer, /*pages=*/false));
    TURBOKV_RETURN_IF_ERROR(CheckRest(layer, rest));
    const size_t tensor_bytes = kPageTokens * spec_->raw_token_bytes() / 2;
    TURBOKV_RETURN_IF_ERROR(WriteRuns(layer, 2 * tensor_bytes,
                                      [&](int64_t block, int64_t count) -> std::vector<NcclPiece> {
                                        return {PieceOf(device_k, block, count, tensor_bytes),
                                                PieceOf(device_v, block, count, tensor_bytes)};
                                      }));
    return WriteRest(layer, rest);
  }

  absl::Status WritePages(int layer, const uint8_t* device_pages) {
    TURBOKV_RETURN_IF_ERROR(CheckLayer(layer, /*pages=*/true));
    const size_t page_bytes = spec_->layer_layouts[layer].page_bytes;
    return WriteRuns(layer, page_bytes,
                     [&](int64_t block, int64_t count) -> std::vector<NcclPiece> {
                       return {PieceOf(device_pages, block, count, page_bytes)};
                     });
  }

  absl::Status WaitSent() { return sends_.Wait(); }

  absl::StatusOr<StoreResult> Finish() {
    if (call_ == nullptr) return AlreadyFinished();
    const absl::StatusOr<v1::StoreResponse> response = call_->Finish();
    call_.reset();
    if (!response.ok()) {
      // Numbers that the service no longer receives.
      if (announced_) link_->channel()->Abort(response.status().message());
      sends_.Wait().IgnoreError();
      return response.status();
    }
    TURBOKV_RETURN_IF_ERROR(sends_.Wait());
    StoreResult result = ToStoreResult(*response);
    result.sent_bytes = sent_bytes_;
    return result;
  }

 private:
  static absl::Status AlreadyFinished() {
    return absl::FailedPreconditionError("the store is finished");
  }

  // `count` blocks from `block` on, of `block_bytes` each.
  static NcclPiece PieceOf(const uint8_t* device, int64_t block, int64_t count,
                           size_t block_bytes) {
    return {const_cast<uint8_t*>(device) + block * block_bytes, count * block_bytes};
  }

  absl::Status CheckLayer(int layer, bool pages) const {
    if (call_ == nullptr) return AlreadyFinished();
    if (pages != pages_) {
      return absl::FailedPreconditionError(pages_ ? "this store takes pages: use WritePages"
                                                  : "this store takes K/V: use WriteLayer");
    }
    if (layer >= 0 && layer < spec_->spec.layers) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("layer is ", layer, "; the spec has ", spec_->spec.layers));
  }

  absl::Status CheckRest(int layer, const KvView& rest) const {
    if (scope_.rest_tokens == 0) return absl::OkStatus();
    const CacheSpec& spec = spec_->spec;
    const bool without_gaps = rest.head_stride == spec.head_dim &&
                              rest.token_stride == ptrdiff_t{spec.kv_heads} * spec.head_dim;
    if (rest.type == spec.source_type && rest.tokens == scope_.rest_tokens && without_gaps) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", layer, ": the rest has ", rest.tokens, " tokens of value type ",
        static_cast<int>(rest.type), without_gaps ? "" : " with gaps", "; expected ",
        scope_.rest_tokens, " of type ", static_cast<int>(spec.source_type), " without gaps"));
  }

  // Cuts a layer's blocks into runs; pieces_of(first block, count) are their memory.
  template <typename PiecesFn>
  absl::Status WriteRuns(int layer, size_t block_bytes, PiecesFn pieces_of) {
    const auto most =
        static_cast<int64_t>(std::min(link_->max_transfer_bytes() / block_bytes, kMaxRunBlocks));
    if (most == 0 && scope_.run_blocks > 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("layer ", layer, ": a block of ", block_bytes,
                       " bytes; the service takes transfers of ", link_->max_transfer_bytes()));
    }
    for (int64_t block = 0; block < scope_.run_blocks;) {
      const int64_t count = std::min(most, scope_.run_blocks - block);
      v1::StoreRequest request;
      request.mutable_chunk()->set_layer(layer);
      v1::NcclRun* run = request.mutable_chunk()->mutable_nccl();
      run->set_sequence(link_->TakeSequences(1));
      run->set_first_block(block);
      run->set_block_count(static_cast<uint32_t>(count));
      announced_ = true;
      TURBOKV_RETURN_IF_ERROR(sends_.Enqueue(link_->channel().get(), run->sequence(),
                                             NcclDirection::kSend, pieces_of(block, count)));
      sent_bytes_ += count * static_cast<int64_t>(block_bytes);
      TURBOKV_RETURN_IF_ERROR(Write(request, {}));
      block += count;
    }
    return absl::OkStatus();
  }

  absl::Status WriteRest(int layer, const KvView& rest) {
    const size_t token_bytes = spec_->raw_token_bytes() / 2;
    const auto step =
        static_cast<int64_t>(std::clamp<size_t>(chunk_bytes_ / (2 * token_bytes), 1, kPageTokens));
    for (int64_t begin = 0; begin < scope_.rest_tokens;) {
      const int64_t page_end = (begin / kPageTokens + 1) * kPageTokens;
      const int64_t count = std::min(step, std::min(page_end, scope_.rest_tokens) - begin);
      v1::StoreRequest request;
      v1::StoreChunk* chunk = request.mutable_chunk();
      chunk->set_layer(layer);
      chunk->set_token_offset(scope_.run_blocks * kPageTokens + begin);
      chunk->set_token_count(static_cast<uint32_t>(count));
      grpc::Slice slice(2 * count * token_bytes);
      auto* out = const_cast<uint8_t*>(slice.begin());
      for (const void* tensor : {rest.k, rest.v}) {
        std::memcpy(out, static_cast<const uint8_t*>(tensor) + begin * token_bytes,
                    count * token_bytes);
        out += count * token_bytes;
      }
      sent_bytes_ += static_cast<int64_t>(slice.size());
      TURBOKV_RETURN_IF_ERROR(Write(request, {&slice, 1}));
      begin += count;
    }
    return absl::OkStatus();
  }

  absl::Status Write(const v1::StoreRequest& request, absl::Span<const grpc::Slice> data) {
    return call_->Write(BuildBulkMessage(request, data));
  }

  const std::shared_ptr<NcclLink> link_;
  const std::shared_ptr<const ResolvedSpec> spec_;
  const size_t chunk_bytes_;
  const Scope scope_;
  const bool pages_;
  bool announced_ = false;
  int64_t sent_bytes_ = 0;
  OutstandingTransfers sends_;
  std::unique_ptr<StoreCall> call_;  // null: finished
};

absl::StatusOr<std::unique_ptr<NcclPrefill>> NcclPrefill::Open(
    std::shared_ptr<CacheChannel> channel, std::shared_ptr<NcclLink> link,
    std::shared_ptr<const ResolvedSpec> spec, absl::Span<const int32_t> token_ids,
    const StoreOptions& options, bool pages) {
  TURBOKV_ASSIGN_OR_RETURN(const Scope scope, ScopeOf(static_cast<int64_t>(token_ids.size()),
                                                      options, options.store_tail && !pages));
  if (link->max_transfer_bytes() == 0) {
    return absl::FailedPreconditionError("the service takes no stores over this link");
  }
  TURBOKV_RETURN_IF_ERROR(link->status());
  auto impl = std::make_unique<Impl>(std::move(channel), std::move(link), std::move(spec), options,
                                     scope, pages);
  TURBOKV_RETURN_IF_ERROR(impl->SendOpen(token_ids, options.salt));
  return std::unique_ptr<NcclPrefill>(new NcclPrefill(std::move(impl)));
}

absl::StatusOr<std::unique_ptr<NcclPrefill>> NcclPrefill::Open(
    std::shared_ptr<CacheChannel> channel, std::shared_ptr<NcclLink> link,
    std::shared_ptr<const ResolvedSpec> spec, absl::Span<const int32_t> token_ids,
    const StoreOptions& options) {
  return Open(std::move(channel), std::move(link), std::move(spec), token_ids, options, false);
}

absl::StatusOr<std::unique_ptr<NcclPrefill>> NcclPrefill::OpenPages(
    std::shared_ptr<CacheChannel> channel, std::shared_ptr<NcclLink> link,
    std::shared_ptr<const ResolvedSpec> spec, absl::Span<const int32_t> token_ids,
    const StoreOptions& options) {
  return Open(std::move(channel), std::move(link), std::move(spec), token_ids, options, true);
}

NcclPrefill::NcclPrefill(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
NcclPrefill::~NcclPrefill() = default;

int64_t NcclPrefill::run_blocks() const { return impl_->scope().run_blocks; }
int64_t NcclPrefill::rest_tokens() const { return impl_->scope().rest_tokens; }

absl::Status NcclPrefill::WriteLayer(int layer, const uint8_t* device_k, const uint8_t* device_v,
                                     const KvView& rest) {
  return impl_->WriteLayer(layer, device_k, device_v, rest);
}

absl::Status NcclPrefill::WritePages(int layer, const uint8_t* device_pages) {
  return impl_->WritePages(layer, device_pages);
}

absl::Status NcclPrefill::WaitSent() { return impl_->WaitSent(); }
absl::StatusOr<StoreResult> NcclPrefill::Finish() { return impl_->Finish(); }

}  // namespace turbokv
