#include "server/ingest/raw_sink.h"

#include <algorithm>
#include <cstring>

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

absl::Status RawSink::Add(const StoreChunk& chunk) {
  TURBOKV_RETURN_IF_ERROR(order_.Enter(chunk.layer));
  TURBOKV_RETURN_IF_ERROR(CheckShape(chunk));
  const PageRange page = PageAt(static_cast<int64_t>(chunk.token_offset));
  const bool wanted = InBlock(page) || InTail(page);
  if (wanted) Stage(chunk, page);
  order_.Advance(chunk.token_count, target_.plan.token_count);
  const bool page_whole = static_cast<int64_t>(order_.position()) == page.begin + page.tokens;
  return wanted && page_whole ? EncodePage(page) : absl::OkStatus();
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

void RawSink::Stage(const StoreChunk& chunk, const PageRange& page) {
  const size_t offset = (chunk.token_offset - page.begin) * tensor_token_bytes_;
  uint8_t* k = staging_.data() + offset;
  uint8_t* v = k + kPageTokens * tensor_token_bytes_;
  SplitPieces(chunk.pieces, chunk.token_count * tensor_token_bytes_, k, v);
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
  const KvView kv = NhdView(spec.spec.source_type, staging_.data(),
                            staging_.data() + kPageTokens * tensor_token_bytes_, page.tokens,
                            spec.spec.kv_heads, spec.spec.head_dim);
  if (InBlock(page)) {
    TURBOKV_RETURN_IF_ERROR(
        encoder_->Encode(PageEncoder::Use::kBlock, spec.layer_layouts[order_.layer()], identity, kv,
                         target_.blocks[page.begin / kPageTokens].page(order_.layer())));
  }
  if (InTail(page)) {
    const int index = static_cast<int>((first_token - target_.plan.tail_begin) / kPageTokens);
    TURBOKV_RETURN_IF_ERROR(encoder_->Encode(PageEncoder::Use::kTail, spec.tail_layout, identity,
                                             kv, target_.tail.page(order_.layer(), index)));
  }
  return absl::OkStatus();
}

}  // namespace turbokv
