// How far quantized K and V move the result of attention.
#pragma once

#include <cstdint>
#include <vector>

#include "client/cli/layer_pages.h"

namespace turbokv::cli {

// The queries of the last `rows` tokens, [q_heads][rows][head_dim]; q_heads is a multiple of the KV
// heads. Row i sits at position tokens - rows + i and sees that position and all before it.
struct Queries {
  int q_heads = 0;
  int rows = 0;
  std::vector<float> values;
};

struct AttentionFidelity {
  double output_error = 0;   // Frobenius norm of the difference over that of the exact output
  double attention_kld = 0;  // mean KL(exact || quantized) of the weights, in nats
};

// Softmax scale 1 / sqrt(head_dim), in double.
AttentionFidelity CompareAttention(const Queries& queries, const LayerValues& exact,
                                   const LayerValues& quantized);

}  // namespace turbokv::cli
