#include "kernels/attention.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/format/page_layout.h"

namespace turbokv {
namespace {

absl::Status InvalidField(absl::string_view field, double value, absl::string_view limit) {
  return absl::InvalidArgumentError(absl::StrCat(field, " ", value, " is not ", limit));
}

absl::Status ValidateShape(const AttentionShape& shape) {
  TURBOKV_RETURN_IF_ERROR(ValidateHeadDim(shape.head_dim));
  if (shape.kv_heads < 1 || shape.kv_heads > kMaxKvHeads) {
    return InvalidField("kv_heads", shape.kv_heads, absl::StrCat("in 1..", kMaxKvHeads));
  }
  if (shape.q_heads < 1 || shape.q_heads % shape.kv_heads != 0) {
    return InvalidField("q_heads", shape.q_heads,
                        absl::StrCat("a multiple of kv_heads ", shape.kv_heads));
  }
  return absl::OkStatus();
}

absl::Status ValidateOptions(const AttentionShape& shape, const AttentionOptions& options) {
  if (!std::isfinite(options.softmax_scale)) {
    return InvalidField("softmax_scale", options.softmax_scale, "finite");
  }
  if (!(options.soft_cap >= 0) || std::isinf(options.soft_cap)) {
    return InvalidField("soft_cap", options.soft_cap, "0 or a positive number");
  }
  if (options.window_tokens < 0) {
    return InvalidField("window_tokens", options.window_tokens, "0 or positive");
  }
  if (!(options.sparse_v_threshold >= 0) || options.sparse_v_threshold > 1) {
    return InvalidField("sparse_v_threshold", options.sparse_v_threshold, "in 0..1");
  }
  const size_t sinks = options.sink_logits.size();
  if (sinks != 0 && sinks != static_cast<size_t>(shape.q_heads)) {
    return InvalidField("sink_logits size", sinks, absl::StrCat("0 or q_heads ", shape.q_heads));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateAttention(const AttentionShape& shape, const AttentionOptions& options,
                               const SequenceKv& sequence, const AttentionQueries& queries) {
  TURBOKV_RETURN_IF_ERROR(ValidateShape(shape));
  const size_t query_count = queries.positions.size();
  if (query_count < 1 || query_count > kMaxQueries) {
    return InvalidField("queries", query_count, absl::StrCat("in 1..", kMaxQueries));
  }
  if (queries.q == nullptr || queries.out == nullptr) {
    return absl::InvalidArgumentError("q or out is a null pointer");
  }
  TURBOKV_RETURN_IF_ERROR(ValidateOptions(shape, options));
  if (sequence.first_position < 0) {
    return InvalidField("first_position", sequence.first_position, "0 or positive");
  }
  if (sequence.tail.tokens < 0) return InvalidField("tail.tokens", sequence.tail.tokens, ">= 0");
  if (sequence.tail.tokens > 0 && (sequence.tail.k == nullptr || sequence.tail.v == nullptr)) {
    return absl::InvalidArgumentError("K or V of the tail is a null pointer");
  }
  return absl::OkStatus();
}

}  // namespace turbokv
