// 32 tokens' values, a thread each, into a caller's memory: whole 128-byte lines at a time.
#pragma once

#include "kernels/cuda/dequantize/stage_codes.cuh"
#include "kernels/cuda/primitives/ptx.cuh"
#include "kernels/cuda/primitives/value_types.cuh"

namespace turbokv::cuda {

// To nearest even; beyond the largest finite number, the largest finite number.
template <int kType>
TURBOKV_DEVICE uint32_t PackFinite(float low, float high) {
  uint32_t pair;
  if constexpr (kType == kTypeBf16) {
    asm("cvt.rn.satfinite.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  }
  return pair;
}

// 16 bytes of values, from channel `begin` on.
template <int kType, int kChannels>
TURBOKV_DEVICE StagedChunk PackChunk(const float (&values)[kChannels], int begin) {
  if constexpr (kType == kTypeFp32) {
    return {{BitsOf(values[begin]), BitsOf(values[begin + 1]), BitsOf(values[begin + 2]),
             BitsOf(values[begin + 3])}};
  } else {
    return {{PackFinite<kType>(values[begin], values[begin + 1]),
             PackFinite<kType>(values[begin + 2], values[begin + 3]),
             PackFinite<kType>(values[begin + 4], values[begin + 5]),
             PackFinite<kType>(values[begin + 6], values[begin + 7])}};
  }
}

// Lane l holds the values of the token whose row begins at values + row_offsets[l]; rows of
// negative offset are not wanted. Every lane of the warp takes part; nobody else uses `stage`.
template <int kType, int kChannels>
TURBOKV_DEVICE void WriteRows(const float (&channels)[kChannels], const int64_t* row_offsets,
                              int lane, uint8_t* stage, uint8_t* values) {
  constexpr int kValueBytes = kType == kTypeFp32 ? 4 : 2;
  constexpr int kColumnChannels = kStageRowBytes / kValueBytes;
  constexpr int kChunks = kStageRowBytes / kChunkBytes;  // of a row: 8 lanes write one
  constexpr int kRowsAtOnce = kWarpLanes / kChunks;
#pragma unroll
  for (int column = 0; column < kChannels / kColumnChannels; ++column) {
    __syncwarp();  // the stage has been read
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const int begin = column * kColumnChannels + chunk * (kChunkBytes / kValueBytes);
      *reinterpret_cast<StagedChunk*>(stage + ChunkOffset(lane, chunk)) =
          PackChunk<kType>(channels, begin);
    }
    __syncwarp();
    const int chunk = lane % kChunks;
    uint8_t* const begin = values + column * kStageRowBytes + chunk * kChunkBytes;
#pragma unroll
    for (int step = 0; step < kWarpLanes / kRowsAtOnce; ++step) {
      const int row = step * kRowsAtOnce + lane / kChunks;
      const int64_t offset = row_offsets[row];
      const auto bytes = *reinterpret_cast<const StagedChunk*>(stage + ChunkOffset(row, chunk));
      if (offset >= 0) *reinterpret_cast<StagedChunk*>(begin + offset) = bytes;
    }
  }
}

}  // namespace turbokv::cuda
