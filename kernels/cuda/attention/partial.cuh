// What attention over a part of a unit's tokens amounts to, and how the parts of one thread block
// become one. A partial result is, for each of 8 x row_tiles rows: the largest score, the sum of
// exp2(score - largest), and the sum of exp2(score - largest) x V, in V's (rotated) domain.
#pragma once

#include "kernels/cuda/attention/values.cuh"
#include "kernels/cuda/primitives/warp_reduce.cuh"

namespace turbokv::cuda {

// A partial result in memory, global or shared.
struct PartialSlot {
  float* values;  // [rows][pitch]
  float* stats;   // [rows][2]
};

// Rows in shared memory are this much longer, so that eight of them lie in different banks.
inline constexpr int kSharedRowPadding = 8;

constexpr int PartialFloats(int head_dim, int row_tiles) {
  return kTileRows * row_tiles * (head_dim + kSharedRowPadding + 2);
}

template <int kHeadDim, int kRowTiles, bool kHasMiddles>
TURBOKV_DEVICE void StorePartial(const PartialSlot& slot, int pitch,
                                 const ValueSums<kHeadDim, kRowTiles>& values,
                                 const SoftmaxState (&softmax)[kRowTiles], int lane) {
  constexpr int kTiles = kHeadDim / kTileChannels;
  const int t = lane & 3;
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    const int row = kTileRows * r + lane / 4;
    float middles[kMaxScaleGroups] = {};
    if constexpr (kHasMiddles) {
      for (int group = 0; group < kMaxScaleGroups; ++group) {
        middles[group] = RowSum(values.middles[r][group]);
      }
    }
    const float sum = RowSum(softmax[r].sum);
    if (t == 0) {
      slot.stats[2 * row] = softmax[r].largest;
      slot.stats[2 * row + 1] = sum;
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const float middle = middles[tile * kTileChannels / GroupChannels(kHeadDim)];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int channel = kTileChannels * tile + 8 * n + 2 * t;
        *reinterpret_cast<float2*>(slot.values + row * pitch + channel) = {
            values.sums[r][tile][n][0] + middle, values.sums[r][tile][n][1] + middle};
      }
    }
  }
}

// Merges the partial results of the block's warps, which lie in shared memory `stride_floats`
// apart. Warps have consecutive shares, so those with the same unit stand together, but for warps
// without any (unit < 0). Each run's result goes to the slot of its first warp. Every row is added
// up by one warp. Call by all threads of the block, 32 warps at most.
template <int kHeadDim, int kRowTiles, typename UnitOf, typename SlotOf>
TURBOKV_DEVICE void MergeWarps(const float* shared, int stride_floats, const UnitOf& unit_of,
                               const SlotOf& slot_of) {
  constexpr int kRows = kTileRows * kRowTiles;
  constexpr int kPitch = kHeadDim + kSharedRowPadding;
  constexpr int kCount = kHeadDim / kWarpLanes;
  const int warps = blockDim.x / kWarpLanes;
  const int lane = threadIdx.x % kWarpLanes;
  const float* const stats = shared + kRows * kPitch;
  int row = threadIdx.x / kWarpLanes;  // the warp's first of the run
  const int unit = lane < warps ? unit_of(lane) : -1;
  unsigned left = __ballot_sync(~0u, unit >= 0);  // a lane for each of the block's warps
  while (left != 0) {
    const int first = __ffs(left) - 1;
    const bool is_in_run = __shfl_sync(~0u, unit, first) == unit;
    const unsigned run = __ballot_sync(~0u, is_in_run);
    const int last = kWarpLanes - 1 - __clz(static_cast<int>(run));
    left &= ~run;
    const PartialSlot to = slot_of(first);
    for (; row < kRows; row += warps) {
      float2 own{kNoScore, 0.0f};
      if (is_in_run) {
        own = *reinterpret_cast<const float2*>(stats + lane * stride_floats + 2 * row);
      }
      const float largest = WarpMax(own.x);
      const float factor = is_in_run ? Exp2(own.x - largest) : 0.0f;
      const float sum = WarpSum(factor != 0.0f ? own.y * factor : 0.0f);
      float values[kCount] = {};
#pragma unroll 4
      for (int warp = first; warp <= last; ++warp) {
        const float gain = __shfl_sync(~0u, factor, warp);
        const float* const from = shared + warp * stride_floats + row * kPitch + lane;
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          // What a warp without the unit has there is no number.
          const float value = gain != 0.0f ? from[kWarpLanes * i] : 0.0f;
          values[i] = __fmaf_rn(value, gain, values[i]);
        }
      }
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        to.values[row * kHeadDim + kWarpLanes * i + lane] = values[i];
      }
      if (lane == 0) {
        to.stats[2 * row] = largest;
        to.stats[2 * row + 1] = sum;
      }
    }
    row = (row - kRows) % warps;
  }
}

}  // namespace turbokv::cuda
