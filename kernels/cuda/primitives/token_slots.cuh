// Where tokens are in a caller's memory: one after the other, or in the slots of an engine's paged
// cache.
#pragma once

#include "kernels/cuda/primitives/page_format.cuh"
#include "kernels/cuda/primitives/platform.cuh"

namespace turbokv::cuda {

// Byte offset of a token's head 0; negative: the token has no slot. `params` has slots (null:
// none), block_tokens, and token_stride and block_stride in bytes.
template <typename Params>
TURBOKV_DEVICE int64_t TokenOffset(const Params& params, int page, int token) {
  const int64_t index = int64_t{page} * kPageTokens + token;
  if (params.slots == nullptr) return index * params.token_stride;
  const int64_t slot = params.slots[index];
  if (slot < 0) return -1;
  if (slot <= 0x7fffffff) {  // the cheaper division
    const auto small = static_cast<uint32_t>(slot);
    const auto block_tokens = static_cast<uint32_t>(params.block_tokens);
    return (small / block_tokens) * params.block_stride +
           (small % block_tokens) * params.token_stride;
  }
  return slot / params.block_tokens * params.block_stride +
         slot % params.block_tokens * params.token_stride;
}

}  // namespace turbokv::cuda
