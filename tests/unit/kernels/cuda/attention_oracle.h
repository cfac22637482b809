// Attention in double over the values that the kernels' tables stand for, and the error that an
// fp16 kernel makes on the same values.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/attention.h"
#include "kernels/format/page_header.h"

namespace turbokv::cuda::testing {

// K and V of one sequence, [tokens][kv_heads][head_dim].
struct DecodedSequence {
  std::vector<double> k;
  std::vector<double> v;
  int tokens = 0;
};

enum class Centroids {
  kTable,   // the integers of IntegerTableOf, as the kernels use them
  kPublic,  // kernels/format/rotation.h
};

void AppendPage(const PageView& page, Centroids centroids, DecodedSequence* sequence);

struct OracleResult {
  std::vector<double> out;  // [queries][q_heads][head_dim]
  std::vector<double> lse;  // [queries][q_heads]
};

// `positions` are those of the queries, `q` is [queries][q_heads][head_dim].
OracleResult OracleAttention(const AttentionShape& shape, const AttentionOptions& options,
                             const DecodedSequence& sequence, absl::Span<const int64_t> positions,
                             absl::Span<const float> q);

// The same as an fp16 kernel computes it: K, V and the weights (relative to the largest) rounded to
// fp16, sums exact.
OracleResult Fp16Attention(const AttentionShape& shape, const AttentionOptions& options,
                           const DecodedSequence& sequence, absl::Span<const int64_t> positions,
                           absl::Span<const float> q);

// The largest error of a row relative to the norm of that row; rows of norm 0 must be equal.
double WorstRowError(absl::Span<const double> actual, absl::Span<const double> expected,
                     int head_dim);

}  // namespace turbokv::cuda::testing
