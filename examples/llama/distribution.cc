#include "examples/llama/distribution.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace turbokv::examples {

double LogSumExp(absl::Span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

int32_t MostLikely(absl::Span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

double KlDivergence(absl::Span<const float> base, absl::Span<const float> other) {
  const double base_normaliser = LogSumExp(base);
  const double other_normaliser = LogSumExp(other);
  double divergence = 0;
  for (size_t i = 0; i < base.size(); ++i) {
    const double log_probability = base[i] - base_normaliser;
    divergence += std::exp(static_cast<float>(log_probability)) *
                  (log_probability - (other[i] - other_normaliser));
  }
  // Rounding may leave a difference of nothing a little below zero.
  return std::max(divergence, 0.0);
}

int32_t Sampler::Draw(absl::Span<const float> logits, int32_t excluded) {
  int32_t drawn = excluded;
  double highest = -std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < logits.size(); ++i) {
    // Not std::uniform_real_distribution: its result differs between standard libraries.
    const double uniform = (static_cast<double>(random_() >> 11) + 0.5) * 0x1p-53;
    const double score = logits[i] / temperature_ - std::log(-std::log(uniform));
    if (static_cast<int32_t>(i) == excluded || score <= highest) continue;
    highest = score;
    drawn = static_cast<int32_t>(i);
  }
  return drawn;
}

}  // namespace turbokv::examples
