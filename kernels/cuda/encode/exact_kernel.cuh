// Any codec from any type with any exponent, in the reference's arithmetic. A block encodes K or V
// of one head of a page.
#pragma once

#include "kernels/cuda/encode/exact_vector.cuh"
#include "kernels/cuda/encode/pack.cuh"
#include "kernels/cuda/encode/source.cuh"

namespace turbokv::cuda {

inline constexpr int kExactThreads = 256;
inline constexpr int kExactWarps = kExactThreads / kWarpLanes;
inline constexpr int kLargestHeadDim = 256;

struct ExactShared {
  int64_t offsets[kPageTokens];  // of this head
  double mean[kLargestHeadDim];
  double vectors[kExactWarps][kLargestHeadDim];
  double scratch[kExactWarps][kWarpLanes * 4];
  uint16_t codes[kTileTokens][kLargestHeadDim];
  uint32_t largest;               // fp8_e4m3: magnitude, as float bits
  uint32_t pending[kExactWarps];  // a bit a thread: that its unit is to be encoded
};

// A value as it is encoded: exponent and mean taken out.
TURBOKV_DEVICE double CentredValue(const TensorParams& params, const ExactShared& shared,
                                   double factor, int token, int channel) {
  const double value = LoadValue(params.values + shared.offsets[token], params.value_type, channel);
  return Subtract(Multiply(value, factor), shared.mean[channel]);
}

// Sums in the order of tokens; stored and kept as rounded to fp16.
TURBOKV_DEVICE void FindMean(const TensorParams& params, double factor, uint8_t* slice,
                             ExactShared& shared) {
  const int channel = threadIdx.x;
  if (channel < params.head_dim) {
    shared.mean[channel] = 0;
    if (params.mean_offset >= 0) {
      double sum = 0;
      for (int token = 0; token < kPageTokens; ++token) {
        sum =
            Add(sum, LoadValue(params.values + shared.offsets[token], params.value_type, channel));
      }
      const uint16_t bits = FiniteFp16(Multiply(Divide(sum, kPageTokens), factor));
      reinterpret_cast<uint16_t*>(slice + params.mean_offset)[channel] = bits;
      shared.mean[channel] = FloatOfFp16(bits);
    }
  }
  __syncthreads();
}

// fp8_e4m3: the head's scale, stored with the zeros behind it.
TURBOKV_DEVICE float FindFp8Scale(const TensorParams& params, double factor, uint8_t* slice,
                                  ExactShared& shared) {
  if (threadIdx.x == 0) shared.largest = 0;
  __syncthreads();
  float largest = 0;
  for (int i = threadIdx.x; i < kPageTokens * params.head_dim; i += kExactThreads) {
    const double value =
        CentredValue(params, shared, factor, i / params.head_dim, i % params.head_dim);
    largest = fmaxf(largest, fabsf(static_cast<float>(value)));
  }
  atomicMax(&shared.largest, __float_as_uint(largest));
  __syncthreads();
  largest = __uint_as_float(shared.largest);
  float scale = __fdiv_rn(largest, 448.0f);
  if (scale == 0 && largest > 0) scale = __uint_as_float(1);
  auto* section = reinterpret_cast<uint32_t*>(slice + params.scales_offset);
  const int words = (params.scales_end - params.scales_offset) / 4;
  if (static_cast<int>(threadIdx.x) < words) {
    section[threadIdx.x] = threadIdx.x == 0 ? __float_as_uint(scale) : 0;
  }
  return scale;
}

// The codes of 32 tokens into their tiles.
TURBOKV_DEVICE void StoreTiles(const TensorParams& params, const ExactShared& shared, int slab,
                               uint8_t* section) {
  const CodecFacts facts = FactsOf(params.codec);
  const int columns = params.head_dim / kTileChannels;
  const int unit = threadIdx.x;
  if (unit >= columns * kWarpLanes) return;
  const int column = unit / kWarpLanes;
  const int lane = unit % kWarpLanes;
  const int g = lane >> 2;
  const int t = lane & 3;
  uint16_t codes[32];
  for (int j = 0; j < 32; ++j) {
    const int n = j >> 3;
    const int quarter = 16 * (j >> 2 & 1) + 4 * t + (j & 3);
    const int k_token = 4 * (g >> 1) + 2 * (n & 1) + (g & 1) + 16 * (n >> 1);
    const int token = params.is_v ? quarter : k_token;
    const int channel = params.is_v ? 8 * n + g : quarter;
    codes[j] = shared.codes[token][kTileChannels * column + channel];
  }
  uint32_t words[16];
  PackLane(facts.code_bits, facts.nibble_order, codes, words);
  auto* tile = reinterpret_cast<uint32_t*>(section) +
               (slab * columns + column) * facts.code_bits * kWarpLanes;
  for (int r = 0; r < facts.code_bits; ++r) tile[r * kWarpLanes + lane] = words[r];
}

TURBOKV_DEVICE void EncodeSlab(const TensorParams& params, int slab, double factor, float fp8_scale,
                               uint8_t* slice, ExactShared& shared) {
  const int lane = threadIdx.x % kWarpLanes;
  const int warp = threadIdx.x / kWarpLanes;
  auto* scales = reinterpret_cast<uint16_t*>(slice + params.scales_offset);
  for (int row = warp; row < kTileTokens; row += kExactWarps) {
    const int token = kTileTokens * slab + row;
    double* vector = shared.vectors[warp];
    for (int c = lane; c < params.head_dim; c += kWarpLanes) {
      vector[c] = CentredValue(params, shared, factor, token, c);
    }
    __syncwarp();
    const VectorOutput output{shared.codes[row], scales + token};
    if (!FactsOf(params.codec).rotated) {
      EncodeUnrotated(params, vector, fp8_scale, lane, output);
    } else if (params.head_dim == 64) {
      EncodeGroupOf<2>(params, vector, 0, shared.scratch[warp], lane, output);
    } else {
      for (int group = 0; group < GroupCount(params.head_dim); ++group) {
        EncodeGroupOf<4>(params, vector, group, shared.scratch[warp], lane, output);
      }
    }
    __syncwarp();
  }
  __syncthreads();
  StoreTiles(params, shared, slab, slice + params.codes_offset);
  __syncthreads();
}

// Whether a page is left to this kernel: what EncodeRotatedKernel has done already is not.
TURBOKV_DEVICE bool NeedsExact(const TensorParams& params, int page) {
  const PageState& state = params.states[page];
  const bool is_encoded = params.encoded_with_zero_exponent && state.exponent[params.is_v] == 0;
  return state.skip == 0 && !is_encoded;
}

TURBOKV_DEVICE void EncodeHead(const TensorParams& params, int page, int head,
                               ExactShared& shared) {
  if (threadIdx.x < kPageTokens) {
    shared.offsets[threadIdx.x] =
        TokenOffset(params, page, threadIdx.x) + head * params.head_stride;
  }
  __syncthreads();
  uint8_t* slice = SliceOf(params, page, head);
  const double factor = PowerOfTwo(-params.states[page].exponent[params.is_v]);
  FindMean(params, factor, slice, shared);
  const float fp8_scale =
      params.codec == Codec::kFp8E4m3 ? FindFp8Scale(params, factor, slice, shared) : 0.0f;
  for (int slab = 0; slab < kTokenTiles; ++slab) {
    EncodeSlab(params, slab, factor, fp8_scale, slice, shared);
  }
}

// Grid: (any, 2): K, then V. Units are heads of pages; a block has every gridDim.x-th. Its threads
// look for those to encode, one each, as mostly there are none.
__global__ void __launch_bounds__(kExactThreads)
    ExactKernel(const __grid_constant__ TensorParams k, const __grid_constant__ TensorParams v) {
  const TensorParams& params = blockIdx.y == 0 ? k : v;
  __shared__ ExactShared shared;
  const int64_t units = int64_t{params.pages} * params.heads;
  const int64_t stride = gridDim.x;
  for (int64_t first = blockIdx.x; first < units; first += stride * kExactThreads) {
    const int64_t own = first + stride * threadIdx.x;
    const bool needed = own < units && NeedsExact(params, static_cast<int>(own / params.heads));
    const uint32_t ballot = __ballot_sync(~0u, needed);
    if (threadIdx.x % kWarpLanes == 0) shared.pending[threadIdx.x / kWarpLanes] = ballot;
    if (!__syncthreads_or(needed)) continue;
    for (int warp = 0; warp < kExactWarps; ++warp) {
      for (uint32_t rest = shared.pending[warp]; rest != 0; rest &= rest - 1) {
        const int thread = warp * kWarpLanes + __ffs(static_cast<int>(rest)) - 1;
        const int64_t unit = first + stride * thread;
        EncodeHead(params, static_cast<int>(unit / params.heads),
                   static_cast<int>(unit % params.heads), shared);
      }
    }
    __syncthreads();
  }
}

}  // namespace turbokv::cuda
