// turboN and intN from bf16 or fp16, with page exponent 0. A block encodes a group of one head of a
// page, K or V: tensor cores and float, and whatever that cannot decide once more in double.
#pragma once

#include "kernels/cuda/encode/group_mean.cuh"
#include "kernels/cuda/encode/lane_codes.cuh"
#include "kernels/cuda/encode/rotate_tokens.cuh"
#include "kernels/cuda/encode/rounding_bounds.cuh"
#include "kernels/cuda/encode/sign_tables.cuh"

namespace turbokv::cuda {

inline constexpr int kEncodeWarps = kEncodeThreads / kWarpLanes;
// As many as shared memory has room for.
inline constexpr int kEncodeBlocksPerSm = 5;

template <int kChannels>
struct alignas(512) RotatedShared {
  GroupValues<kChannels> group;
  union {
    int64_t offsets[kPageTokens];  // until values are loaded
    GroupMean<kChannels> mean;
  };
  SignTables<kChannels> signs;
  alignas(4) uint8_t exact_codes[kEncodeWarps][kChannels];
  uint16_t scales[2][kPageTokens];
};

template <bool kIsV>
using TokenNumbers = float[LaneTokens<kIsV>::kPerStep];

TURBOKV_DEVICE float ApproximateRoot(float x) {
  float root;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
  return root;
}
TURBOKV_DEVICE float ApproximateInverseRoot(float x) {
  float root;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
  return root;
}

// combine(value, value) over the lanes that share a token.
template <bool kIsV, class Combine>
TURBOKV_DEVICE float OverSharers(float value, Combine combine) {
#pragma unroll
  for (int stride = LaneTokens<kIsV>::kFirstStride; stride < LaneTokens<kIsV>::kEndStride;
       stride *= 2) {
    value = combine(value, __shfl_xor_sync(~0u, value, stride));
  }
  return value;
}

// The squared norm of each of a step's tokens, in four (K) or two (V) chains of a lane.
template <int kChannels, bool kIsV>
TURBOKV_DEVICE void SquaredNorms(const float (&y)[kChannels / 16][4], TokenNumbers<kIsV>& norms) {
  float sums[4] = {};
#pragma unroll
  for (int block = 0; block < kChannels / 16; ++block) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] = __fmaf_rn(y[block][i], y[block][i], sums[i]);
  }
#pragma unroll
  for (int k = 0; k < LaneTokens<kIsV>::kPerStep; ++k) {
    const float sum = kIsV ? sums[k] + sums[k + 2] : (sums[0] + sums[1]) + (sums[2] + sums[3]);
    norms[k] = OverSharers<kIsV>(sum, [](float a, float b) { return a + b; });
  }
}

// Bounds of the page's largest norm, of the values as given, from the largest squared norm of
// Y = sqrt(channels) x without mean (as bits: NaNs are the largest).
template <int kChannels>
TURBOKV_DEVICE void ReportNorms(const TensorParams& params, int page, uint32_t squared_norm_bits,
                                float mean_norm) {
  const uint32_t largest = __reduce_max_sync(~0u, squared_norm_bits & 0x7fffffffu);
  if (threadIdx.x % kWarpLanes != 0) return;
  const float norm = sqrtf(__uint_as_float(largest) * (1.0f / kChannels));
  const float above = 1.01f * (norm + mean_norm);
  // Some vector is as long as the mean, but for what the mean lost to rounding.
  const float by_mean = 0.99f * mean_norm - 0x1p-18f;
  const float below = fmaxf(0.0f, fmaxf(0.99f * norm - 1.01f * mean_norm, by_mean));
  PageState& state = params.states[page];
  atomicMax(&state.norm_above[params.is_v], __float_as_uint(above) & 0x7fffffffu);
  atomicMax(&state.norm_below[params.is_v], __float_as_uint(below));
}

// A token in double. Its codes come as bytes, its scales in place.
template <bool kBf16, int kChannels, class Quantizer>
TURBOKV_DEVICE void EncodeTokenExactly(const Quantizer& quantizer, bool has_mean,
                                       RotatedShared<kChannels>& shared, int token) {
  constexpr int kPerLane = kChannels / kWarpLanes;
  const int lane = threadIdx.x % kWarpLanes;
  const int warp = threadIdx.x / kWarpLanes;
  double x[kPerLane];
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    const int channel = kPerLane * lane + k;
    const uint32_t word = shared.group.words[token][channel / 2];
    const double mean = has_mean ? shared.mean.values[channel] : 0.0f;
    x[k] = Subtract(HalfOf(word, channel & 1, kBf16), mean);
  }
  uint32_t codes[kPerLane];
  const PaddingRows<kChannels> scratch{&shared.group.words[32 * warp][kChannels / 2]};
  const GroupScales scales = quantizer.EncodeExactly(x, scratch, codes);
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    shared.exact_codes[warp][kPerLane * lane + k] = static_cast<uint8_t>(codes[k]);
  }
  if (lane == 0) {
    shared.scales[0][token] = scales.first;
    shared.scales[1][token] = scales.second;
  }
  __syncwarp();
}

// A block's place in the batch.
struct GroupPlace {
  int page, head, group;
};
template <int kChannels>
TURBOKV_DEVICE GroupPlace PlaceOfBlock(const TensorParams& params) {
  const bool two_groups = params.head_dim > kChannels;
  const uint32_t head = two_groups ? blockIdx.x / 2 : blockIdx.x;
  const auto heads = static_cast<uint32_t>(params.heads);
  return {static_cast<int>(head / heads), static_cast<int>(head % heads),
          two_groups ? static_cast<int>(blockIdx.x % 2) : 0};
}

// Quantizer: what a codec does with rotated tokens (turbo_kernel.cuh, int_kernel.cuh).
template <int kChannels, bool kIsV, bool kBf16, class Quantizer>
__global__ void __launch_bounds__(kEncodeThreads, kEncodeBlocksPerSm)
    EncodeRotatedKernel(const __grid_constant__ TensorParams params) {
  extern __shared__ __align__(512) uint8_t shared_bytes[];
  auto& shared = *reinterpret_cast<RotatedShared<kChannels>*>(shared_bytes);
  const GroupPlace place = PlaceOfBlock<kChannels>(params);
  if (!StartToLoadGroup<kChannels>(params, place.page, place.head, place.group * kChannels,
                                   shared.offsets, shared.group)) {
    return;
  }
  const int lane = threadIdx.x % kWarpLanes;
  const int slab = threadIdx.x / kWarpLanes;
  uint8_t* slice = SliceOf(params, place.page, place.head);
  Quantizer quantizer(params, shared_bytes + sizeof(RotatedShared<kChannels>),
                      shared.signs.of_lanes, lane);
  StartToLoadSigns<kChannels, kIsV>(shared.signs);
  const TokenRotation<kChannels, kIsV, kBf16> rotation(shared.signs.flips, lane);
  WaitForCopies();
  __syncthreads();

  const bool has_mean = !kIsV && params.mean_offset >= 0;
  float mean_norm = 0.0f;
  if (has_mean) {
    auto* section = reinterpret_cast<uint16_t*>(slice + params.mean_offset);
    ComputeMean<kBf16>(shared.group, section + place.group * kChannels, shared.mean);
    mean_norm = shared.mean.norm;
  } else if (!kIsV) {
    UseNoMean<kChannels>(shared.mean);
  }

  uint32_t largest = 0;
#pragma unroll 1
  for (int step = 0; step < LaneTokens<kIsV>::kSteps; ++step) {
    float y[kChannels / 16][4];
    rotation.Run(shared.group, slab, step, shared.mean.sums, y);
    TokenNumbers<kIsV> norms;
    SquaredNorms<kChannels, kIsV>(y, norms);
#pragma unroll
    for (float norm : norms) largest = max(largest, __float_as_uint(norm) & 0x7fffffffu);
    quantizer.Step(step, y, norms, mean_norm, &shared.scales[0][32 * slab]);
  }
  ReportNorms<kChannels>(params, place.page, largest, mean_norm);

  uint32_t doubtful = quantizer.Finish(&shared.scales[0][32 * slab]);
  __syncwarp();
#pragma unroll 1
  for (; doubtful != 0; doubtful &= doubtful - 1) {
    const int token = __ffs(static_cast<int>(doubtful)) - 1;
    EncodeTokenExactly<kBf16>(quantizer, has_mean, shared, 32 * slab + token);
    quantizer.codes().Replace(lane, token, shared.exact_codes[slab]);
    __syncwarp();
  }

  const int tile_columns = params.head_dim / kTileChannels;
  const int first_tile = slab * tile_columns + place.group * (kChannels / kTileChannels);
  quantizer.StoreCodes(slice + params.codes_offset, first_tile);
  auto* scales = reinterpret_cast<uint16_t*>(slice + params.scales_offset);
#pragma unroll
  for (int row = 0; row < Quantizer::kScaleRows; ++row) {
    const int place_in_rows = (place.group * Quantizer::kScaleRows + row) * kPageTokens;
    scales[place_in_rows + 32 * slab + lane] = shared.scales[row][32 * slab + lane];
  }
}

}  // namespace turbokv::cuda
