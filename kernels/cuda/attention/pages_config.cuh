// Shape of the pages kernel for a pair of codecs: how many warps share a multiprocessor, and what
// lies where in its shared memory. Host and device code.
#pragma once

#include "kernels/cuda/primitives/page_format.cuh"

namespace turbokv::cuda {

inline constexpr int kMaxPagesWarps = 12;
// Shared memory that one thread block may have on sm_90.
inline constexpr int kMaxSharedBytes = 227 * 1024;

// A warp's shared memory: one slot for the K half of a slice and one for the V half.
constexpr int WarpSlotBytes(Codec k, Codec v, int head_dim) {
  return HalfBytes(k, head_dim, IsQuantized(k)) + HalfBytes(v, head_dim, false);
}
// What a warp has behind the slots (WarpShared in pages_kernel.cuh).
inline constexpr int kWarpExtraBytes = 352;

constexpr int PagesSharedBytes(Codec k, Codec v, int head_dim, int warps) {
  return warps * (WarpSlotBytes(k, v, head_dim) + kWarpExtraBytes);
}

// Warps of a thread block, one block a multiprocessor. They are limited by registers (a warp holds
// the output of all its rows: twelve warps leave it 168, which is enough not to spill) and by
// shared memory.
constexpr int PagesWarps(Codec k, Codec v, int head_dim, int row_tiles, int shared_bytes) {
  const int by_registers = head_dim * row_tiles <= 128 ? kMaxPagesWarps : 8;
  const int by_memory = shared_bytes / PagesSharedBytes(k, v, head_dim, 1);
  const int warps = by_memory < by_registers ? by_memory : by_registers;
  return warps >= 4 ? warps / 4 * 4 : warps;  // of four schedulers
}

}  // namespace turbokv::cuda
