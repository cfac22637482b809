// Next-token distributions: comparing and sampling them.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "absl/types/span.h"

namespace turbokv::examples {

// log(sum(exp(logits))).
double LogSumExp(absl::Span<const float> logits);

// The most likely token; the first of equals.
int32_t MostLikely(absl::Span<const float> logits);

// KL(softmax(base) || softmax(other)), in nats.
double KlDivergence(absl::Span<const float> base, absl::Span<const float> other);

// Draws tokens from softmax(logits / temperature); the same seed draws the same tokens, and, where
// distributions differ a little, seldom another one: each token has its own (Gumbel) noise.
class Sampler {
 public:
  Sampler(double temperature, uint64_t seed) : temperature_(temperature), random_(seed) {}

  // Never draws `excluded`.
  int32_t Draw(absl::Span<const float> logits, int32_t excluded);

 private:
  const double temperature_;
  std::mt19937_64 random_;
};

}  // namespace turbokv::examples
