#include "client/cli/attention_fidelity.h"

#include <algorithm>
#include <cmath>

namespace turbokv::cli {
namespace {

// One query against the first `visible` keys and values of its head.
struct HeadAttention {
  std::vector<double> log_weights;
  std::vector<double> output;
};

HeadAttention Attend(const float* q, const LayerValues& values, int kv_head, int64_t visible) {
  const int dim = values.head_dim;
  const size_t head_offset = static_cast<size_t>(kv_head) * values.tokens * dim;
  const float* k = values.k.data() + head_offset;
  const float* v = values.v.data() + head_offset;
  const double scale = 1.0 / std::sqrt(static_cast<double>(dim));

  HeadAttention result{std::vector<double>(visible), std::vector<double>(dim)};
  double largest = -HUGE_VAL;
  for (int64_t t = 0; t < visible; ++t) {
    double dot = 0;
    for (int c = 0; c < dim; ++c) dot += static_cast<double>(q[c]) * k[t * dim + c];
    result.log_weights[t] = dot * scale;
    largest = std::max(largest, result.log_weights[t]);
  }
  double sum = 0;
  for (double logit : result.log_weights) sum += std::exp(logit - largest);
  const double log_sum = largest + std::log(sum);
  for (int64_t t = 0; t < visible; ++t) {
    result.log_weights[t] -= log_sum;
    const double weight = std::exp(result.log_weights[t]);
    for (int c = 0; c < dim; ++c) result.output[c] += weight * v[t * dim + c];
  }
  return result;
}

}  // namespace

AttentionFidelity CompareAttention(const Queries& queries, const LayerValues& exact,
                                   const LayerValues& quantized) {
  const int group = queries.q_heads / exact.kv_heads;
  double error_energy = 0;
  double output_energy = 0;
  double kld = 0;
  for (int head = 0; head < queries.q_heads; ++head) {
    for (int row = 0; row < queries.rows; ++row) {
      const float* q =
          queries.values.data() + (static_cast<size_t>(head) * queries.rows + row) * exact.head_dim;
      const int64_t visible = exact.tokens - queries.rows + row + 1;
      const HeadAttention p = Attend(q, exact, head / group, visible);
      const HeadAttention r = Attend(q, quantized, head / group, visible);
      for (int64_t t = 0; t < visible; ++t) {
        kld += std::exp(p.log_weights[t]) * (p.log_weights[t] - r.log_weights[t]);
      }
      for (int c = 0; c < exact.head_dim; ++c) {
        const double error = r.output[c] - p.output[c];
        error_energy += error * error;
        output_energy += p.output[c] * p.output[c];
      }
    }
  }
  AttentionFidelity fidelity;
  fidelity.output_error = error_energy == 0 ? 0 : std::sqrt(error_energy / output_energy);
  fidelity.attention_kld = kld / (static_cast<double>(queries.q_heads) * queries.rows);
  return fidelity;
}

}  // namespace turbokv::cli
