#include "server/ingest/raw_sink.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

// Copies the first `first_bytes` of `pieces` to `first`, the rest to `second`.
void SplitPieces(absl::Span<const absl::Span<const uint8_t>> pieces, size_t first_bytes,
                 uint8_t* first, uint8_t* second) {
  for (absl::Span<const uint8_t> piece : pieces) {
    const size_t part = std::min(first_bytes, piece.size());
    if (part > 0) std::memcpy(first, piece.data(), part);
    first += part;
    first_bytes -= part;
    piece.remove_prefix(part);
    if (!piece.empty()) std::memcpy(second, piece.data(), piece.size());
    second += piece.size();
  }
}

}  // namespace

RawSink::RawSink(const StoreTarget* target, PageEncoder* encoder, absl::Duration* encode_time)
    : target_(*target),
      encoder_(encoder),
      encode_time_(encode_time),
      tensor_token_bytes_(target->plan.spec->raw_token_bytes() / 2),
      order_(target->plan.spec->spec.layers, "tokens"),
      staging_(target->plan.raw_page_bytes()) {}

RawSink::~RawSink() { completion_.Wait().IgnoreError(); }

absl::Status RawSink::Add(const StoreChunk& chunk) {
  TURBOKV_RETURN_IF_ERROR(order_.Enter(chunk.layer));
  TURBOKV_RETURN_IF_ERROR(CheckShape(chunk));
  const PageRange page = PageAt(static_cast<int64_t>(chunk.token_offset));
  const bool wanted = InBlock(page) || InTail(page);
  if (wanted) TURBOKV_RETURN_IF_ERROR(Stage(chunk, page));
  order_.Advance(chunk.token_count, target_.plan.token_count);
  const bool page_whole = static_cast<int64_t>(order_.position()) == page.begin + page.tokens;
  if (wanted && page_whole) TURBOKV_RETURN_IF_ERROR(EncodePage(page));
  return completion_.first_error();
}

absl::Status RawSink::Skip(const BlockRun& run) {
  TURBOKV_RETURN_IF_ERROR(order_.Enter(run.layer));
  const StorePlan& plan = target_.plan;
  const int64_t end =
      plan.tail_key ? (plan.tail_begin - plan.first_token) / kPageTokens : plan.blocks();
  TURBOKV_RETURN_IF_ERROR(CheckRun(run, order_.position(), kPageTokens, end));
  order_.Advance(uint64_t{run.block_count} * kPageTokens, plan.token_count);
  return completion_.first_error();
}

absl::Status RawSink::Finish() {
  TURBOKV_RETURN_IF_ERROR(order_.CheckComplete());
  const absl::Time start = absl::Now();
  TURBOKV_RETURN_IF_ERROR(completion_.Wait());
  *encode_time_ += absl::Now() - start;
  CompareSample();
  return absl::OkStatus();
}

absl::Status RawSink::CheckShape(const StoreChunk& chunk) const {
  const auto invalid = [&](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", chunk.layer, ": ", what...));
  };
  if (chunk.token_offset != order_.position()) {
    return invalid("expected token_offset ", order_.position(), ", got ", chunk.token_offset);
  }
  const PageRange page = PageAt(static_cast<int64_t>(chunk.token_offset));
  const int64_t left = page.begin + page.tokens - static_cast<int64_t>(chunk.token_offset);
  if (chunk.token_count == 0 || chunk.token_count > left) {
    return invalid("token_count is ", chunk.token_count, " at token_offset ", chunk.token_offset,
                   "; expected 1..", left, ", none beyond its page");
  }
  const uint64_t expected_bytes = uint64_t{chunk.token_count} * 2 * tensor_token_bytes_;
  if (chunk.bytes != expected_bytes) {
    return invalid("token_count ", chunk.token_count, " needs ", expected_bytes, " bytes, got ",
                   chunk.bytes);
  }
  return absl::OkStatus();
}

RawSink::PageRange RawSink::PageAt(int64_t token_offset) const {
  const int64_t begin = token_offset / kPageTokens * kPageTokens;
  return {begin,
          static_cast<int>(std::clamp<int64_t>(target_.plan.token_count - begin, 0, kPageTokens))};
}

bool RawSink::InBlock(const PageRange& page) const {
  const int64_t block = page.begin / kPageTokens;
  return block < target_.plan.blocks() && target_.blocks[block];
}

bool RawSink::InTail(const PageRange& page) const {
  return target_.tail && target_.plan.first_token + page.begin >= target_.plan.tail_begin;
}

bool RawSink::OnDevice(const PageRange& page) const {
  return target_.device != nullptr && InBlock(page);
}

absl::StatusOr<uint8_t*> RawSink::PageBuffer(const PageRange& page) {
  if (!OnDevice(page)) return staging_.data();
  if (!slot_) {
    TURBOKV_ASSIGN_OR_RETURN(slot_, target_.device->AcquireSlot());
  }
  return slot_.data();
}

absl::Status RawSink::Stage(const StoreChunk& chunk, const PageRange& page) {
  TURBOKV_ASSIGN_OR_RETURN(uint8_t* const buffer, PageBuffer(page));
  uint8_t* k = buffer + (chunk.token_offset - page.begin) * tensor_token_bytes_;
  uint8_t* v = k + kPageTokens * tensor_token_bytes_;
  SplitPieces(chunk.pieces, chunk.token_count * tensor_token_bytes_, k, v);
  return absl::OkStatus();
}

KvView RawSink::ViewOf(const uint8_t* raw, int tokens) const {
  const CacheSpec& spec = target_.plan.spec->spec;
  return NhdView(spec.source_type, raw, raw + kPageTokens * tensor_token_bytes_, tokens,
                 spec.kv_heads, spec.head_dim);
}

absl::Status RawSink::EncodePage(const PageRange& page) {
  const absl::Time start = absl::Now();
  const absl::Cleanup add_time = [&] { *encode_time_ += absl::Now() - start; };
  const ResolvedSpec& spec = *target_.plan.spec;
  const int64_t first_token = target_.plan.first_token + page.begin;
  PageIdentity identity;
  identity.layer = order_.layer();
  identity.first_token = first_token;
  identity.spec_id = spec.spec_id();
  const KvView kv = ViewOf(slot_ ? slot_.data() : staging_.data(), page.tokens);
  if (InTail(page)) {
    const int index = static_cast<int>((first_token - target_.plan.tail_begin) / kPageTokens);
    TURBOKV_RETURN_IF_ERROR(encoder_->Encode(PageEncoder::Use::kTail, spec.tail_layout, identity,
                                             kv, target_.tail.page(order_.layer(), index)));
  }
  if (OnDevice(page)) {
    SubmitPage(page, identity);
  } else if (InBlock(page)) {
    TURBOKV_RETURN_IF_ERROR(
        encoder_->Encode(PageEncoder::Use::kBlock, spec.layer_layouts[order_.layer()], identity, kv,
                         target_.blocks[page.begin / kPageTokens].page(order_.layer())));
  }
  return absl::OkStatus();
}

void RawSink::SubmitPage(const PageRange& page, const PageIdentity& identity) {
  const int layer = order_.layer();
  // One sample a store at a time: a bound on memory.
  if (!sample_ && encoder_->NextIsSampled()) {
    const size_t raw_bytes = target_.plan.raw_page_bytes();
    sample_ = Sample{{slot_.data(), slot_.data() + raw_bytes}, page, layer};
  }
  EncodeRequest request;
  request.slot = std::move(slot_);
  request.type = target_.plan.spec->spec.source_type;
  request.identity = identity;
  request.targets.push_back({&target_.plan.spec->layer_layouts[layer],
                             target_.blocks[page.begin / kPageTokens].page(layer).data()});
  target_.device->encoder->Submit(std::move(request), &completion_);
}

void RawSink::CompareSample() {
  if (!sample_) return;
  const auto page = target_.blocks[sample_->page.begin / kPageTokens].page(sample_->layer);
  std::vector<uint8_t> bytes(page.size());
  const DeviceRead read{bytes.data(), page.data(), page.size()};
  if (target_.device->io->Read({&read, 1}).ok()) {
    encoder_->Sample(ViewOf(sample_->raw.data(), sample_->page.tokens), bytes);
  }
  sample_.reset();
}

}  // namespace turbokv
