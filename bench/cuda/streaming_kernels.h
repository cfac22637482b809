// Kernels that do nothing but move memory, for what a device's memory can do. Included by the .cu
// that defines them and by host code.
#pragma once

#include <cstdint>

namespace turbokv::bench {

// Of a block; more would leave a thread too few registers for the loads below.
inline constexpr int kMaxThreads = 512;
// How many 16-byte loads a thread has in flight.
inline constexpr int kUnrolls[] = {4, 8, 16};

struct StreamingArguments {
  const uint8_t* from = nullptr;  // 16-byte aligned
  uint8_t* to = nullptr;          // copies only
  int64_t bytes = 0;              // a multiple of what all blocks move in one step
  // Bulk kernels only: bytes of one copy (a multiple of 128), and how many are in flight in a
  // block. Dynamic shared memory: BulkSharedBytes().
  uint32_t chunk_bytes = 0;
  int stages = 0;
  // A read kernel stores here when all that it read adds up to `never`: loads are not optimised
  // away.
  uint32_t* sink = nullptr;
  uint32_t never = 0;
};

inline constexpr int kMaxStages = 16;
constexpr uint32_t BulkSharedBytes(uint32_t chunk_bytes, int stages) {
  return 8 * kMaxStages + stages * chunk_bytes;
}

// All take (StreamingArguments). A block of `threads` threads moves 16 x threads x unroll bytes in
// one step; bulk kernels take blocks of one warp and do nothing below sm_90.
const void* ReadKernel(int unroll, bool prefetch_256_bytes);
const void* CopyKernel(int unroll);
const void* BulkReadKernel();
const void* BulkCopyKernel();
// Fills `to` with words that differ.
const void* FillKernel();

}  // namespace turbokv::bench
