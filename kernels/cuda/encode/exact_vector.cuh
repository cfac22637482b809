// One token's vector by one warp, any codec, in the reference's arithmetic.
#pragma once

#include "kernels/cuda/encode/exact_group.cuh"
#include "kernels/cuda/primitives/page_format.cuh"

namespace turbokv::cuda {

// Where a token's codes and scales go.
struct VectorOutput {
  uint16_t* codes;   // one a channel
  uint16_t* scales;  // of this token, in row 0; rows are kPageTokens apart
};

// Any rotated codec.
template <int kPerLane>
__device__ __noinline__ GroupScales EncodeGroupExactly(double (&x)[kPerLane],
                                                       const TensorParams& params, double* scratch,
                                                       int lane, uint32_t (&codes)[kPerLane]) {
  const CodecFacts facts = FactsOf(params.codec);
  if (facts.scale_kind == ScaleKind::kGroupFp16) {
    return EncodeTurboExactly<kPerLane>(x, params.codebook, LinearSearch{params.codebook},
                                        ScratchRows{scratch}, lane, codes);
  }
  return EncodeIntExactly<kPerLane>(x, (1 << facts.code_bits) - 1, ScratchRows{scratch}, lane,
                                    codes);
}

// Channels `begin`.. of `vector`, a group of kPerLane x 32.
template <int kPerLane>
TURBOKV_DEVICE void EncodeGroupOf(const TensorParams& params, const double* vector, int group,
                                  double* scratch, int lane, const VectorOutput& output) {
  const int first = group * kPerLane * kWarpLanes + kPerLane * lane;
  double x[kPerLane];
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) x[k] = vector[first + k];
  uint32_t codes[kPerLane];
  const GroupScales scales = EncodeGroupExactly<kPerLane>(x, params, scratch, lane, codes);
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) output.codes[first + k] = static_cast<uint16_t>(codes[k]);
  if (lane != 0) return;
  if (FactsOf(params.codec).scale_kind == ScaleKind::kGroupFp16) {
    output.scales[group * kPageTokens] = scales.first;
  } else {
    output.scales[2 * group * kPageTokens] = scales.first;
    output.scales[(2 * group + 1) * kPageTokens] = scales.second;
  }
}

// 1 / d, or 0 where that is no number.
TURBOKV_DEVICE float InverseOrZero(float d) {
  const float inverse = d == 0.0f ? 0.0f : __fdiv_rn(1.0f, d);
  return isinf(inverse) ? 0.0f : inverse;
}

// ggml's q8_0: a lane has one value of the block.
TURBOKV_DEVICE uint32_t EncodeQ8(float value, uint16_t& scale) {
  const uint32_t largest = __reduce_max_sync(~0u, __float_as_uint(fabsf(value)));
  const float d = __fdiv_rn(__uint_as_float(largest), 127.0f);
  scale = FiniteFp16(d);
  const float code = roundf(__fmul_rn(value, InverseOrZero(d)));
  return static_cast<uint32_t>(static_cast<int>(code)) & 0xff;
}

// ggml's q4_0: the scale is that of the first value of largest magnitude.
TURBOKV_DEVICE uint32_t EncodeQ4(float value, uint16_t& scale) {
  const uint32_t magnitude = __float_as_uint(fabsf(value));
  const uint32_t largest = __reduce_max_sync(~0u, magnitude);
  const int first = __ffs(static_cast<int>(__ballot_sync(~0u, magnitude == largest))) - 1;
  const float extreme = largest == 0 ? 0.0f : __shfl_sync(~0u, value, first);
  const float d = __fdiv_rn(extreme, -8.0f);
  scale = FiniteFp16(d);
  const int code = static_cast<int>(__fadd_rn(__fmul_rn(value, InverseOrZero(d)), 8.5f));
  return static_cast<uint32_t>(code < 15 ? code : 15);
}

TURBOKV_DEVICE void EncodeUnrotated(const TensorParams& params, const double* vector,
                                    float fp8_scale, int lane, const VectorOutput& output) {
  for (int channel = lane; channel < params.head_dim; channel += kWarpLanes) {
    const double value = vector[channel];
    const auto rounded = static_cast<float>(value);
    uint32_t code = 0;
    uint16_t scale = 0;
    switch (params.codec) {
      case Codec::kBf16:
        code = FiniteBf16(rounded);
        break;
      case Codec::kFp16:
        code = FiniteFp16(value);
        break;
      case Codec::kFp8E4m3:
        code = fp8_scale == 0.0f ? 0 : Fp8OfFloat(__fdiv_rn(rounded, fp8_scale));
        break;
      case Codec::kQ8_0:
        code = EncodeQ8(rounded, scale);
        break;
      default:
        code = EncodeQ4(rounded, scale);
    }
    output.codes[channel] = static_cast<uint16_t>(code);
    const bool has_scale = FactsOf(params.codec).scale_kind == ScaleKind::kBlockFp16;
    if (has_scale && lane == 0) {
      output.scales[channel / kScaleBlockChannels * kPageTokens] = scale;
    }
  }
}

}  // namespace turbokv::cuda
