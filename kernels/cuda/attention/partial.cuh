// What attention over a part of a unit's tokens amounts to, and how the parts of one thread block
// become one. A partial result is, for each of 8 x row_tiles rows: the largest score, the sum of
// exp2(score - largest), and the sum of exp2(score - largest) x V, in V's (rotated) domain.
#pragma once

#include "kernels/cuda/attention/values.cuh"

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
// without any (unit < 0). Each run's result goes to the slot of its first warp. Call by all threads
// of the block.
template <int kHeadDim, int kRowTiles, typename UnitOf, typename SlotOf>
TURBOKV_DEVICE void MergeWarps(float* shared, int stride_floats, int warps, const UnitOf& unit_of,
                               const SlotOf& slot_of) {
  constexpr int kRows = kTileRows * kRowTiles;
  constexpr int kPitch = kHeadDim + kSharedRowPadding;
  float* const stats = shared + kRows * kPitch;
  for (int first = 0; first < warps;) {
    const int unit = unit_of(first);
    int last = first + 1;
    while (last < warps && (unit_of(last) == unit || unit_of(last) < 0)) ++last;
    if (unit >= 0) {
      const PartialSlot to = slot_of(first);
      // The largest score becomes the factor of the warp's values; absent warps get none.
      for (int row = threadIdx.x; row < kRows; row += blockDim.x) {
        float largest = kNoScore;
        for (int warp = first; warp < last; ++warp) {
          if (unit_of(warp) == unit) {
            largest = fmaxf(largest, stats[warp * stride_floats + 2 * row]);
          }
        }
        float sum = 0.0f;
        for (int warp = first; warp < last; ++warp) {
          float* const own = stats + warp * stride_floats + 2 * row;
          own[0] = unit_of(warp) == unit ? Exp2(own[0] - largest) : 0.0f;
          if (own[0] != 0.0f) sum = __fmaf_rn(own[1], own[0], sum);
        }
        to.stats[2 * row] = largest;
        to.stats[2 * row + 1] = sum;
      }
      __syncthreads();
      for (int i = threadIdx.x; i < kRows * kHeadDim; i += blockDim.x) {
        const int row = i / kHeadDim;
        const float* const values = shared + row * kPitch + i % kHeadDim;
        float value = 0.0f;
        for (int warp = first; warp < last; ++warp) {
          const float factor = stats[warp * stride_floats + 2 * row];
          if (factor != 0.0f) value = __fmaf_rn(values[warp * stride_floats], factor, value);
        }
        to.values[i] = value;
      }
    }
    first = last;
  }
}

}  // namespace turbokv::cuda
