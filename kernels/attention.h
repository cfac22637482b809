// Arguments of decode attention, shared by every implementation.
//
// For query i, query head h (KV head h / (q_heads / kv_heads)) and the tokens j it may see:
//   s_j = softmax_scale * dot(q_ih, k_j),  soft-capped: c * tanh(s_j / c)
//   lse = log( sum_j exp(s_j) + exp(sink_h) )                       natural logarithm
//   out = sum_j exp(s_j - lse) * v_j
// Visible: position_j <= position_i, and position_i - position_j < window_tokens when that is set.
// No visible token and no sink: out = 0, lse = -infinity.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/kv_view.h"

namespace turbokv {

inline constexpr int kMaxQueries = 16;

struct AttentionShape {
  int q_heads = 0;  // a multiple of kv_heads
  int kv_heads = 0;
  int head_dim = 0;
};

struct AttentionOptions {
  float softmax_scale = 1.0f;
  float soft_cap = 0.0f;                // 0: none
  int64_t window_tokens = 0;            // 0: no sliding window
  absl::Span<const float> sink_logits;  // empty, or [q_heads]: learned sinks
  // A token whose softmax weight, relative to the largest seen so far, is below this adds nothing
  // to V's sum (its weight still counts in lse). 0: never skip. 1e-6 is a useful value.
  float sparse_v_threshold = 0.0f;
};

// The keys and values of one sequence, one layer: packed pages, then the exact tail.
// Token positions are consecutive: page p begins where page p - 1 ends, the first at
// first_position; the tail follows the last page. Pages may differ in codec; a page may hold fewer
// than 128 tokens. Their checksums are trusted (verified on arrival); their headers are checked.
struct SequenceKv {
  absl::Span<const absl::Span<const uint8_t>> pages;
  int64_t first_position = 0;
  KvView tail;  // tail.tokens == 0: none
};

// q and out are [queries][q_heads][head_dim], lse is [queries][q_heads]; lse may be null.
struct AttentionQueries {
  absl::Span<const int64_t> positions;  // of each query, 1..kMaxQueries of them
  const float* q = nullptr;
  float* out = nullptr;
  float* lse = nullptr;
};

// Checks everything but the pages, for every implementation alike. INVALID_ARGUMENT names the
// field, its value and the limit.
absl::Status ValidateAttention(const AttentionShape& shape, const AttentionOptions& options,
                               const SequenceKv& sequence, const AttentionQueries& queries);

}  // namespace turbokv
