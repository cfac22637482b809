// The yardstick of attention on packed pages: the same attention on K and V in bf16, vectorised
// with the same care (Highway, the same dispatch, the same softmax).
//
// Blocks of 128 tokens with an online softmax; 16 accumulators in registers in both products; query
// heads of one KV head share every converted K and V.
#pragma once

#include "kernels/kv_view.h"

namespace turbokv {

struct Bf16Attention {
  KvView kv;  // bf16; tokens a multiple of 128
  int kv_heads;
  int group_heads;  // query heads a KV head: 1 or 4
  // q and out are [kv_heads * group_heads][128]; q includes the softmax scale.
  const float* q;
  float* out;
};

// head_dim 128. Heads are the outer loop for HND (a head's tokens are contiguous), blocks of tokens
// for NHD (a block's heads are).
void RunBf16Attention(const Bf16Attention& problem);

}  // namespace turbokv
