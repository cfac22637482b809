// K's mean: stored as fp16, and as the rotation of every token's vector begins with it.
#pragma once

#include "kernels/cuda/encode/exact_group.cuh"
#include "kernels/cuda/encode/fragments.cuh"
#include "kernels/cuda/encode/load_page.cuh"

namespace turbokv::cuda {

template <int kChannels>
struct GroupMean {
  alignas(16) float values[kChannels];  // as stored
  // What the rotation's sums over 16 channels begin with, minus the mean's: at PlaceOfSum.
  alignas(16) float sums[kChannels];
  float norm;
};

// The sum of a channel in the order of tokens, in double. `column`: its first token's.
template <int kRowHalves>
TURBOKV_DEVICE double SumOfFp16(const int16_t* column) {
  double sum = 0;
#pragma unroll 8
  for (int token = 0; token < kPageTokens; ++token) {
    sum = Add(sum, FloatOfFp16(static_cast<uint16_t>(column[token * kRowHalves])));
  }
  return sum;
}
// Extended to 32 bits by the load itself.
TURBOKV_DEVICE int32_t LoadSigned16(uint32_t shared_address) {
  int32_t value;
  asm volatile("ld.shared.s16 %0, [%1];" : "=r"(value) : "r"(shared_address));
  return value;
}
// Conversions from float to double are slow, shifts are not.
template <int kRowHalves>
TURBOKV_DEVICE double SumOfBf16(const int16_t* column) {
  const uint32_t address = SharedAddress(column);
  double sum = 0;
#pragma unroll 16
  for (int token = 0; token < kPageTokens; ++token) {
    const int32_t bits = LoadSigned16(address + token * kRowHalves * 2);
    sum = Add(sum, __hiloint2double(ScaledDoubleOfBf16(bits), 0));
  }
  return Multiply(sum, kScaledDoubleUnit);
}

// By the whole block, of 128 loaded tokens. `stored` is the mean's section from the group on.
template <bool kBf16, int kChannels>
TURBOKV_DEVICE void ComputeMean(const GroupValues<kChannels>& group, uint16_t* stored,
                                GroupMean<kChannels>& mean) {
  const int channel = threadIdx.x;
  if (channel < kChannels) {
    constexpr int kRowHalves = 2 * GroupValues<kChannels>::kRowWords;
    const auto* column = reinterpret_cast<const int16_t*>(group.words[0]) + channel;
    const double sum = kBf16 ? SumOfBf16<kRowHalves>(column) : SumOfFp16<kRowHalves>(column);
    const uint16_t bits = FiniteFp16(Multiply(sum, 1.0 / kPageTokens));
    stored[channel] = bits;
    mean.values[channel] = FloatOfFp16(bits);
  }
  __syncthreads();
  constexpr int kPerLane = kChannels / kWarpLanes;
  if (threadIdx.x < kWarpLanes) {
    const int lane = threadIdx.x;
    double x[kPerLane];
    float square = 0;
#pragma unroll
    for (int k = 0; k < kPerLane; ++k) {
      const float value = mean.values[kPerLane * lane + k];
      square += value * value;
      x[k] = value;
    }
    TransformSmallBlocks<kPerLane, 16 / kPerLane>(x, lane);
#pragma unroll
    for (int k = 0; k < kPerLane; ++k) {
      mean.sums[PlaceOfSum<kChannels>(kPerLane * lane + k)] = -static_cast<float>(x[k]);
    }
#pragma unroll
    for (int stride = 1; stride < kWarpLanes; stride *= 2) {
      square += __shfl_xor_sync(~0u, square, stride);
    }
    if (lane == 0) mean.norm = sqrtf(square) * 1.0001f;
  }
  __syncthreads();
}

// The same where there is no mean to lose.
template <int kChannels>
TURBOKV_DEVICE void UseNoMean(GroupMean<kChannels>& mean) {
  if (threadIdx.x < kChannels) mean.values[threadIdx.x] = mean.sums[threadIdx.x] = 0.0f;
  if (threadIdx.x == 0) mean.norm = 0.0f;
  __syncthreads();
}

}  // namespace turbokv::cuda
