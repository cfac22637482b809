// q8_0, q4_0, fp8_e4m3, bf16 and fp16: codes and scales of one head, in float as ggml does it.
#include "kernels/cpu/simd_targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/encode_unrotated.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/encode_kernels.h"
#include "kernels/cpu/fast_fp16.h"
#include "kernels/cpu/load_values-inl.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {

constexpr int kValueLanes = static_cast<int>(hn::MaxLanes(ValueTag()));
constexpr int kBlockVectors = kScaleBlockChannels / kValueLanes;
using ValueVec = hn::Vec<ValueTag>;

// values[c] * factor - mean[c] of one vector, computed in double, then rounded to float.
HWY_INLINE ValueVec LoadCentred(const CentredHead& head, const float* values, int channel) {
  const hn::CappedTag<double, 8> d;
  const hn::Rebind<float, decltype(d)> df;
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(hn::CappedTag<double, 8>()));
  HWY_ALIGN float centred[kValueLanes];
  for (int i = 0; i < kValueLanes; i += kLanes) {
    const auto value = hn::PromoteTo(d, hn::LoadU(df, values + channel + i));
    const auto mean = hn::LoadU(d, head.mean + channel + i);
    hn::Store(hn::DemoteTo(df, hn::MulSub(value, hn::Set(d, head.factor), mean)), df, centred + i);
  }
  return hn::Load(ValueTag(), centred);
}

// Lanes 0..255 as bytes. q8_0's codes come as signed numbers.
HWY_INLINE void StoreCodes(hn::Vec<hn::RebindToSigned<ValueTag>> codes, uint8_t* out) {
  const hn::Rebind<uint8_t, ValueTag> d8;
  const hn::RebindToSigned<ValueTag> di;
  // Highway 1.0.3's TruncateTo is wrong here for AVX3_DL.
  hn::StoreU(hn::DemoteTo(d8, hn::And(codes, hn::Set(di, 0xff))), d8, out);
}

// As std::round: halves away from zero.
HWY_INLINE ValueVec RoundHalfAway(ValueVec v) {
  const ValueTag d;
  const auto whole = hn::Trunc(v);
  const auto is_up = hn::Ge(hn::Abs(hn::Sub(v, whole)), hn::Set(d, 0.5f));
  return hn::Add(whole, hn::IfThenElseZero(is_up, hn::CopySign(hn::Set(d, 1.0f), v)));
}

struct Extremes {
  float min;
  float max;
};

HWY_INLINE Extremes ExtremesOf(const ValueVec* block) {
  const ValueTag d;
  auto min = block[0];
  auto max = block[0];
  for (int i = 1; i < kBlockVectors; ++i) {
    min = hn::Min(min, block[i]);
    max = hn::Max(max, block[i]);
  }
  return {hn::GetLane(hn::MinOfLanes(d, min)), hn::GetLane(hn::MaxOfLanes(d, max))};
}

// The first value of the largest magnitude, with its sign; 0 for zeros.
HWY_INLINE float ExtremeOf(const ValueVec* block) {
  const Extremes extremes = ExtremesOf(block);
  if (extremes.max > -extremes.min) return extremes.max;
  if (extremes.max < -extremes.min) return extremes.min;
  HWY_ALIGN float values[kScaleBlockChannels];
  for (int i = 0; i < kBlockVectors; ++i) hn::Store(block[i], ValueTag(), values + i * kValueLanes);
  float extreme = 0;
  for (float value : values) {
    if (std::abs(value) > std::abs(extreme)) extreme = value;
  }
  return extreme;
}

HWY_INLINE float InverseOrZero(float d) {
  const float inverse = d == 0 ? 0.0f : 1.0f / d;
  return std::isinf(inverse) ? 0.0f : inverse;
}

// Both return the block's scale.
HWY_INLINE float EncodeQ8Block(const ValueVec* block, uint8_t* codes) {
  const Extremes extremes = ExtremesOf(block);
  const float scale = std::max(extremes.max, -extremes.min) / 127.0f;
  const auto inverse = hn::Set(ValueTag(), InverseOrZero(std::abs(scale)));
  const hn::RebindToSigned<ValueTag> di;
  for (int i = 0; i < kBlockVectors; ++i) {
    StoreCodes(hn::ConvertTo(di, RoundHalfAway(hn::Mul(block[i], inverse))),
               codes + i * kValueLanes);
  }
  return std::abs(scale);
}

HWY_INLINE float EncodeQ4Block(const ValueVec* block, uint8_t* codes) {
  const float scale = ExtremeOf(block) / -8.0f;
  const auto inverse = hn::Set(ValueTag(), InverseOrZero(scale));
  const auto offset = hn::Set(ValueTag(), 8.5f);
  const hn::RebindToSigned<ValueTag> di;
  for (int i = 0; i < kBlockVectors; ++i) {
    const auto code = hn::ConvertTo(di, hn::Add(hn::Mul(block[i], inverse), offset));
    StoreCodes(hn::Min(code, hn::Set(di, 15)), codes + i * kValueLanes);
  }
  return scale;
}

void EncodeBlocksImpl(const CentredHead& head, Codec codec, uint8_t* codes, uint8_t* scales) {
  const auto encode = codec == Codec::kQ8_0 ? EncodeQ8Block : EncodeQ4Block;
  for (int token = 0; token < head.tokens; ++token) {
    const float* values = head.values + token * head.padded_dim;
    for (int c = 0; c < head.padded_dim; c += kScaleBlockChannels) {
      ValueVec block[kBlockVectors];
      for (int i = 0; i < kBlockVectors; ++i) {
        block[i] = LoadCentred(head, values, c + i * kValueLanes);
      }
      const float scale = encode(block, codes + token * head.padded_dim + c);
      const uint16_t bits = FastDoubleToFiniteFp16(scale);
      std::memcpy(scales + 2 * (c / kScaleBlockChannels * kPageTokens + token), &bits, 2);
    }
  }
}

HWY_INLINE float LargestCentred(const CentredHead& head) {
  const ValueTag d;
  auto largest = hn::Zero(d);
  for (int token = 0; token < head.tokens; ++token) {
    const float* values = head.values + token * head.padded_dim;
    for (int c = 0; c < head.padded_dim; c += kValueLanes) {
      largest = hn::Max(largest, hn::Abs(LoadCentred(head, values, c)));
    }
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

// Nearest e4m3 bits, ties to even; magnitudes above 448 become 448.
HWY_INLINE hn::Vec<hn::RebindToSigned<ValueTag>> ToFp8(ValueVec v) {
  const ValueTag d;
  const hn::RebindToSigned<ValueTag> di;
  const auto magnitude = hn::Min(hn::Abs(v), hn::Set(d, 448.0f));
  // Subnormals are multiples of 2^-9, the spacing of floats at 2^14.
  const auto at_spacing = hn::Set(d, 0x1p14f);
  const auto units = hn::Sub(hn::Add(magnitude, at_spacing), at_spacing);
  const auto subnormal = hn::ConvertTo(di, hn::Mul(units, hn::Set(d, 0x1p9f)));
  const auto bits = hn::BitCast(di, magnitude);
  const auto odd = hn::And(hn::ShiftRight<20>(bits), hn::Set(di, 1));
  const auto rounded = hn::ShiftRight<20>(hn::Add(bits, hn::Add(odd, hn::Set(di, 0x7ffff))));
  const auto normal = hn::Sub(rounded, hn::Set(di, (127 - 7) << 3));
  const auto is_small = hn::RebindMask(di, hn::Lt(magnitude, hn::Set(d, 0x1p-6f)));
  const auto sign = hn::And(hn::ShiftRight<24>(hn::BitCast(di, v)), hn::Set(di, 0x80));
  return hn::Or(hn::IfThenElse(is_small, subnormal, normal), sign);
}

void EncodeFp8Impl(const CentredHead& head, uint8_t* codes, uint8_t* scales) {
  const float largest = LargestCentred(head);
  float scale = largest / 448.0f;
  if (scale == 0 && largest > 0) scale = std::numeric_limits<float>::denorm_min();
  std::memcpy(scales, &scale, sizeof(scale));
  const size_t count = static_cast<size_t>(head.tokens) * head.padded_dim;
  if (scale == 0) {
    std::fill(codes, codes + count, 0);
    return;
  }
  const auto divisor = hn::Set(ValueTag(), scale);
  for (int token = 0; token < head.tokens; ++token) {
    const float* values = head.values + token * head.padded_dim;
    for (int c = 0; c < head.padded_dim; c += kValueLanes) {
      StoreCodes(ToFp8(hn::Div(LoadCentred(head, values, c), divisor)),
                 codes + token * head.padded_dim + c);
    }
  }
}

HWY_INLINE void StoreBf16(ValueVec v, uint16_t* out) {
  const hn::RebindToUnsigned<ValueTag> du;
  const hn::Rebind<uint16_t, ValueTag> dh;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu))));
  const auto is_infinite =
      hn::Eq(hn::And(rounded, hn::Set(du, 0x7fffu)), hn::Set(du, uint32_t{0x7f80}));
  const auto finite = hn::Sub(rounded, hn::IfThenElseZero(is_infinite, hn::Set(du, 1u)));
  hn::StoreU(hn::TruncateTo(dh, finite), dh, out);
}

HWY_INLINE void StoreFp16(ValueVec v, uint16_t* out) {
#if HWY_TARGET == HWY_EMU128
  HWY_ALIGN float values[kValueLanes];
  hn::Store(v, ValueTag(), values);
  for (int i = 0; i < kValueLanes; ++i) out[i] = FastDoubleToFiniteFp16(values[i]);
#else
  const ValueTag d;
  const hn::Rebind<hwy::float16_t, ValueTag> dh;
  const hn::Rebind<uint16_t, ValueTag> du;
  const auto limit = hn::Set(d, 65504.0f);
  const auto clamped = hn::Max(hn::Min(v, limit), hn::Neg(limit));
  hn::StoreU(hn::BitCast(du, hn::DemoteTo(dh, clamped)), du, out);
#endif
}

void EncodeHalvesImpl(const CentredHead& head, Codec codec, uint16_t* codes) {
  const auto store = codec == Codec::kBf16 ? StoreBf16 : StoreFp16;
  for (int token = 0; token < head.tokens; ++token) {
    const float* values = head.values + token * head.padded_dim;
    for (int c = 0; c < head.padded_dim; c += kValueLanes) {
      const auto value =
          head.factor == 1 ? hn::LoadU(ValueTag(), values + c) : LoadCentred(head, values, c);
      store(value, codes + token * head.padded_dim + c);
    }
  }
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace turbokv::cpu {

HWY_EXPORT(EncodeBlocksImpl);
HWY_EXPORT(EncodeFp8Impl);
HWY_EXPORT(EncodeHalvesImpl);

void EncodeBlocks(const CentredHead& head, Codec codec, uint8_t* codes, uint8_t* scales) {
  HWY_DYNAMIC_DISPATCH(EncodeBlocksImpl)(head, codec, codes, scales);
}

void EncodeFp8(const CentredHead& head, uint8_t* codes, uint8_t* scales) {
  HWY_DYNAMIC_DISPATCH(EncodeFp8Impl)(head, codes, scales);
}

void EncodeHalves(const CentredHead& head, Codec codec, uint16_t* codes) {
  HWY_DYNAMIC_DISPATCH(EncodeHalvesImpl)(head, codec, codes);
}

}  // namespace turbokv::cpu
#endif  // HWY_ONCE
