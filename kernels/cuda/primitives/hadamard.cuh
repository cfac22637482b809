// The rotation of kernels/format/rotation.h by one warp, in float:
//   y = s2 * H(s1 * x) / sqrt(n)    and back    x = s1 * H(s2 * y) / sqrt(n),    n = 64 or 128
//
// Value c of a head is element c / 32 of lane c % 32: strides below 32 are lane exchanges, the
// others stay in the lane.
#pragma once

#include "kernels/cuda/primitives/page_format.cuh"
#include "kernels/cuda/primitives/platform.cuh"
#include "kernels/cuda/primitives/rotation_signs.cuh"

namespace turbokv::cuda {

// kInverse: un-rotates.
template <int kHeadDim, bool kInverse>
TURBOKV_DEVICE void RotateHead(float (&values)[kHeadDim / kWarpLanes], int lane) {
  constexpr int kCount = kHeadDim / kWarpLanes;
  constexpr int kGroupCount = GroupChannels(kHeadDim) / kWarpLanes;
  constexpr float kFactor = kGroupCount == 2 ? 0.125f : 0.08838834764831845f;
  const auto flip = [&](bool first, float factor) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int word = i % kGroupCount;
      const uint32_t signs = first ? FirstSigns(word) : SecondSigns(word);
      values[i] *= (signs >> lane) & 1 ? -factor : factor;
    }
  };
  flip(!kInverse, 1.0f);
#pragma unroll
  for (int stride = 1; stride < kWarpLanes; stride *= 2) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float other = __shfl_xor_sync(~0u, values[i], stride);
      values[i] = lane & stride ? other - values[i] : values[i] + other;
    }
  }
#pragma unroll
  for (int stride = 1; stride < kGroupCount; stride *= 2) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i & stride) continue;
      const float a = values[i];
      const float b = values[i + stride];
      values[i] = a + b;
      values[i + stride] = a - b;
    }
  }
  flip(kInverse, kFactor);
}

}  // namespace turbokv::cuda
