// Rotary position embedding in the half-split order of Hugging Face's Llama: channel i turns with
// channel i + head_dim / 2.
#pragma once

#include <cstdint>
#include <vector>

namespace turbokv::examples {

class RopeTable {
 public:
  // Angles of `tokens` consecutive positions.
  RopeTable(int head_dim, double theta, int64_t first_position, int tokens);

  // Turns x [tokens][heads][head_dim] in place.
  void Apply(int heads, float* x) const;

 private:
  int half_;
  int tokens_;
  std::vector<float> cos_, sin_;  // [tokens][half_]
};

}  // namespace turbokv::examples
