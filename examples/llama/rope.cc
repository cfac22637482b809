#include "examples/llama/rope.h"

#include <cmath>

namespace turbokv::examples {

RopeTable::RopeTable(int head_dim, double theta, int64_t first_position, int tokens)
    : half_(head_dim / 2), tokens_(tokens) {
  cos_.reserve(static_cast<size_t>(tokens) * half_);
  sin_.reserve(static_cast<size_t>(tokens) * half_);
  for (int token = 0; token < tokens; ++token) {
    for (int i = 0; i < half_; ++i) {
      const double frequency = std::pow(theta, -2.0 * i / head_dim);
      const double angle = static_cast<double>(first_position + token) * frequency;
      cos_.push_back(static_cast<float>(std::cos(angle)));
      sin_.push_back(static_cast<float>(std::sin(angle)));
    }
  }
}

void RopeTable::Apply(int heads, float* x) const {
  for (int token = 0; token < tokens_; ++token) {
    const float* cosines = cos_.data() + static_cast<size_t>(token) * half_;
    const float* sines = sin_.data() + static_cast<size_t>(token) * half_;
    for (int head = 0; head < heads; ++head, x += 2 * half_) {
      for (int i = 0; i < half_; ++i) {
        const float low = x[i];
        const float high = x[i + half_];
        x[i] = low * cosines[i] - high * sines[i];
        x[i + half_] = high * cosines[i] + low * sines[i];
      }
    }
  }
}

}  // namespace turbokv::examples
