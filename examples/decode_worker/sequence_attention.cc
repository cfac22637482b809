#include "examples/decode_worker/sequence_attention.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv::examples {

absl::Status SequenceAttention::Attend(const LayerBatch& batch) {
  if (before_layer_) TURBOKV_RETURN_IF_ERROR(before_layer_(batch.layer));
  for (int first = 0; first < batch.tokens; first += kMaxQueries) {
    const ptrdiff_t q_offset = ptrdiff_t{first} * config_.q_dim();
    const ptrdiff_t kv_offset = ptrdiff_t{first} * config_.kv_dim();
    TURBOKV_RETURN_IF_ERROR(AttendChunk(
        {batch.layer, batch.first_position + first, std::min(kMaxQueries, batch.tokens - first),
         batch.q + q_offset, batch.k + kv_offset, batch.v + kv_offset, batch.out + q_offset}));
  }
  return absl::OkStatus();
}

absl::Status SequenceAttention::AttendChunk(const LayerBatch& chunk) {
  const int64_t held = cache_->tokens(chunk.layer) - chunk.first_position;
  if (held < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", chunk.layer, " holds ", cache_->tokens(chunk.layer),
                     " tokens, the next to attend is at position ", chunk.first_position));
  }
  if (held < chunk.tokens) {
    const ptrdiff_t offset = held * config_.kv_dim();
    TURBOKV_RETURN_IF_ERROR(cache_->Append(
        chunk.layer,
        NhdView(ValueType::kFp32, chunk.k + offset, chunk.v + offset,
                chunk.tokens - static_cast<int>(held), config_.kv_heads, config_.head_dim)));
  }
  std::array<int64_t, kMaxQueries> positions;
  std::iota(positions.begin(), positions.end(), chunk.first_position);
  AttentionOptions options;
  options.softmax_scale = config_.softmax_scale();
  return cache_->Attend(chunk.layer, config_.q_heads, options,
                        {absl::MakeConstSpan(positions).first(chunk.tokens), chunk.q, chunk.out});
}

}  // namespace turbokv::examples
