// One token's values from its staged codes, by one thread: in its registers, without exchanges.
#pragma once

#include "kernels/cuda/dequantize/stage_codes.cuh"
#include "kernels/cuda/encode/codebook.cuh"
#include "kernels/cuda/primitives/page_format.cuh"

namespace turbokv::cuda {

// What a token's codes are multiplied by. `post` applies after the rotation is undone.
struct TokenFactors {
  float step[2];  // intN: [0]; q8_0, q4_0: of the unit's 32-channel blocks
  float minimum;  // intN
  float post;
};

// Channels that a warp decodes at a time: a rotated group, or what the stage holds.
constexpr int UnitChannels(Codec codec, int head_dim) {
  return FactsOf(codec).rotated ? GroupChannels(head_dim) : 64;
}

// fp16 numbers of a page are finite. Exact, denormals included.
TURBOKV_HOST_DEVICE float HalfToFloat(uint32_t bits) {
  const float magnitude = FloatOf((bits & 0x7fff) << 13) * 0x1p112f;
  return FloatOf(BitsOf(magnitude) | (bits & 0x8000) << 16);
}

// Exact for codes below 2^8 and a whole offset below 2^8.
template <int kOffset>
TURBOKV_HOST_DEVICE float CodeToFloat(uint32_t code) {
  constexpr uint32_t kTwoTo15 = 0x47000000u;  // whose mantissa counts in units of 2^-8
  return FloatOf(kTwoTo15 | code << 8) - (32768.0f + kOffset);
}

// The value of one staged code, before `post` and the rotation. `table` is of floats.
template <Codec kCodec>
TURBOKV_HOST_DEVICE float CodeValue(uint32_t code, const float* table, const TokenFactors& factors,
                                    int block) {
  if constexpr (IsTurbo(kCodec)) {
    return *reinterpret_cast<const float*>(reinterpret_cast<const uint8_t*>(table) + code);
  } else if constexpr (IsAffine(kCodec)) {
    return MultiplyAdd(CodeToFloat<0>(code), factors.step[0], factors.minimum);
  } else if constexpr (kCodec == Codec::kQ8_0) {
    return CodeToFloat<128>(code) * factors.step[block];
  } else if constexpr (kCodec == Codec::kQ4_0) {
    return CodeToFloat<8>(code) * factors.step[block];
  } else if constexpr (kCodec == Codec::kFp8E4m3) {
    // Exponent and mantissa where a float has them; 2^120 is what the biases differ by.
    return FloatOf((code & 0x80) << 24 | (code & 0x7f) << 20) * 0x1p120f;
  } else if constexpr (kCodec == Codec::kFp16) {
    return HalfToFloat(code);
  } else {
    return FloatOf(code << 16);
  }
}

// x = s1 * H(s2 * y), not yet divided by sqrt(channels). Signs are known when this is compiled and
// cost nothing.
template <int kChannels>
TURBOKV_HOST_DEVICE void Unrotate(float (&values)[kChannels]) {
  TURBOKV_UNROLL
  for (int c = 0; c < kChannels; ++c) {
    if (SecondSigns(c / 32) >> c % 32 & 1) values[c] = -values[c];
  }
  TURBOKV_UNROLL
  for (int stride = 1; stride < kChannels; stride *= 2) {
    TURBOKV_UNROLL
    for (int c = 0; c < kChannels; ++c) {
      if (c & stride) continue;
      const float a = values[c];
      const float b = values[c + stride];
      values[c] = a + b;
      values[c + stride] = a - b;
    }
  }
  TURBOKV_UNROLL
  for (int c = 0; c < kChannels; ++c) {
    if (FirstSigns(c / 32) >> c % 32 & 1) values[c] = -values[c];
  }
}

constexpr float InverseRoot(int channels) {
  return channels == 64 ? 0.125f : static_cast<float>(1 / kRoot128);
}

// `scales` is the tensor's section; `unit` counts units of kChannels channels.
template <Codec kCodec, int kChannels>
TURBOKV_HOST_DEVICE TokenFactors ReadFactors(const uint8_t* scales, int unit, int token) {
  const auto* rows = reinterpret_cast<const uint16_t*>(scales);
  TokenFactors factors{{1.0f, 1.0f}, 0.0f, 1.0f};
  if constexpr (IsTurbo(kCodec)) {
    factors.post = HalfToFloat(rows[unit * kPageTokens + token]) * InverseRoot(kChannels);
  } else if constexpr (IsAffine(kCodec)) {
    factors.step[0] = HalfToFloat(rows[2 * unit * kPageTokens + token]);
    factors.minimum = HalfToFloat(rows[(2 * unit + 1) * kPageTokens + token]);
    factors.post = InverseRoot(kChannels);
  } else if constexpr (FactsOf(kCodec).scale_kind == ScaleKind::kBlockFp16) {
    factors.step[0] = HalfToFloat(rows[2 * unit * kPageTokens + token]);
    factors.step[1] = HalfToFloat(rows[(2 * unit + 1) * kPageTokens + token]);
  } else if constexpr (kCodec == Codec::kFp8E4m3) {
    factors.post = *reinterpret_cast<const float*>(scales);
  }
  return factors;
}

// The lane's token, kChannels values, but for `post`, K mean and exponent.
template <Codec kCodec, int kChannels, bool kIsV>
TURBOKV_HOST_DEVICE void DecodeToken(const uint8_t* stage, int lane, const float* table,
                                     const TokenFactors& factors, float (&values)[kChannels]) {
  TURBOKV_UNROLL
  for (int begin = 0; begin < kChannels; begin += 8) {
    uint32_t codes[8];
    ReadStaged<kIsV, HasWideCodes(kCodec)>(stage, lane, begin, codes);
    TURBOKV_UNROLL
    for (int i = 0; i < 8; ++i) {
      values[begin + i] = CodeValue<kCodec>(codes[i], table, factors, begin / 32 & 1);
    }
  }
  if constexpr (FactsOf(kCodec).rotated) Unrotate(values);
}

// `post`, then the K mean. `mean` is not read for V.
template <Codec kCodec, int kChannels, bool kIsV>
TURBOKV_HOST_DEVICE void Finish(float (&values)[kChannels], float post, const float* mean) {
  constexpr bool kHasPost = FactsOf(kCodec).rotated || kCodec == Codec::kFp8E4m3;
  TURBOKV_UNROLL
  for (int c = 0; c < kChannels; ++c) {
    if constexpr (kIsV || !IsQuantized(kCodec)) {
      if constexpr (kHasPost) values[c] *= post;
    } else if constexpr (kHasPost) {
      values[c] = MultiplyAdd(values[c], post, mean[c]);
    } else {
      values[c] += mean[c];
    }
  }
}

// x 2^exponent, beyond the largest float the largest float. In two steps, since 2^exponent alone
// may be no float; the first one is exact.
template <int kChannels>
TURBOKV_HOST_DEVICE void ApplyExponent(float (&values)[kChannels], int exponent) {
  constexpr float kLargest = 0x1.fffffep127f;
  const int half = exponent / 2;
  const float first = FloatOf(static_cast<uint32_t>(127 + half) << 23);
  const float second = FloatOf(static_cast<uint32_t>(127 + exponent - half) << 23);
  TURBOKV_UNROLL
  for (int c = 0; c < kChannels; ++c) {
    values[c] = Larger(-kLargest, Smaller(kLargest, values[c] * first * second));
  }
}

}  // namespace turbokv::cuda
