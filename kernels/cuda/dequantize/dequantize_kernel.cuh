// One tensor (K or V) of pages into a caller's memory. A thread block takes one unit (a rotated
// group, or 64 channels) of one head of one page: each of its warps 32 tokens, each thread one.
#pragma once

#include "kernels/cuda/dequantize/decode_token.cuh"
#include "kernels/cuda/dequantize/dequantize_kernels.h"
#include "kernels/cuda/dequantize/params.cuh"
#include "kernels/cuda/dequantize/write_rows.cuh"
#include "kernels/cuda/primitives/token_slots.cuh"

namespace turbokv::cuda {

inline constexpr int kDequantizeWarps = kDequantizeBlockThreads / kWarpLanes;
static_assert(kDequantizeBlockThreads == kPageTokens);

template <int kChannels>
struct DequantizeMemory {
  alignas(128) uint8_t stage[kDequantizeWarps][kStageBytes];
  alignas(16) float mean[kChannels];
  float table[kMaxCentroidCount];
  int64_t row_offsets[kDequantizeWarps][kWarpLanes];
};

// The warp's tiles, through the stage.
template <Codec kCodec, int kChannels, bool kIsV>
TURBOKV_DEVICE void StageUnit(const uint8_t* tiles, int lane, uint8_t* stage) {
  constexpr int kTiles = kChannels / kTileChannels;
  constexpr int kWords = TileWords(kCodec);
  const auto* rows = reinterpret_cast<const uint32_t*>(tiles) + lane;
  uint32_t words[kTiles][kWords];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int r = 0; r < kWords; ++r) {
      words[tile][r] = __ldg(rows + (tile * kWords + r) * kWarpLanes);
    }
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    StageTile<kCodec, kIsV>(words[tile], lane, tile, stage);
  }
}

template <Codec kCodec, int kChannels, bool kIsV>
__global__ void __launch_bounds__(kDequantizeBlockThreads, 3)
    DequantizeKernel(const __grid_constant__ DequantizeParams params) {
  __shared__ DequantizeMemory<kChannels> memory;
  const PageSource& source = params.source;
  const int unit = static_cast<int>(blockIdx.x);
  const int units = static_cast<int>(gridDim.x);
  const int head = static_cast<int>(blockIdx.y);
  const int page = params.first_page + static_cast<int>(blockIdx.z);
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int token = kTileTokens * warp + LaneToken<kIsV>(lane);

  const uint8_t* header = source.pool + source.page_ids[page] * source.page_stride;
  const uint8_t* slice = header + kPageHeaderBytes + int64_t{head} * source.slice_bytes;
  const int exponent = *reinterpret_cast<const int16_t*>(header + source.exponent_offset);
  const int tokens = *reinterpret_cast<const uint16_t*>(header + kHeaderTokensOffset);
  const TokenFactors factors =
      ReadFactors<kCodec, kChannels>(slice + source.scales_offset, unit, token);

  const int tile = (warp * units + unit) * (kChannels / kTileChannels);
  uint8_t* const stage = memory.stage[warp];
  StageUnit<kCodec, kChannels, kIsV>(slice + source.codes_offset + tile * TileBytes(kCodec), lane,
                                     stage);
  memory.row_offsets[warp][lane] = token < tokens ? TokenOffset(params, page, token) : -1;
  if constexpr (IsTurbo(kCodec)) {
    if (threadIdx.x < kMaxCentroidCount) memory.table[threadIdx.x] = params.centroids[threadIdx.x];
  }
  if constexpr (!kIsV && IsQuantized(kCodec)) {
    if (threadIdx.x < kChannels) {
      const auto* mean = reinterpret_cast<const uint16_t*>(slice + source.mean_offset);
      memory.mean[threadIdx.x] =
          source.mean_offset < 0 ? 0.0f : HalfToFloat(mean[unit * kChannels + threadIdx.x]);
    }
  }
  __syncthreads();

  float values[kChannels];
  DecodeToken<kCodec, kChannels, kIsV>(stage, lane, memory.table, factors, values);
  Finish<kCodec, kChannels, kIsV>(values, factors.post, memory.mean);
  // The product of fp8_e4m3's scale and its largest code may round to infinity.
  if (exponent != 0 || kCodec == Codec::kFp8E4m3) ApplyExponent(values, exponent);

  const int value_bytes = params.value_type == kTypeFp32 ? 4 : 2;
  uint8_t* const to =
      params.values + head * params.head_stride + int64_t{unit} * kChannels * value_bytes;
  const int64_t* const row_offsets = memory.row_offsets[warp];
  if (params.value_type == kTypeBf16) {
    WriteRows<kTypeBf16>(values, row_offsets, lane, stage, to);
  } else if (params.value_type == kTypeFp16) {
    WriteRows<kTypeFp16>(values, row_offsets, lane, stage, to);
  } else {
    WriteRows<kTypeFp32>(values, row_offsets, lane, stage, to);
  }
}

}  // namespace turbokv::cuda
