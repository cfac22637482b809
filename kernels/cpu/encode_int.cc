// int4, int5, int6, int8: codes, steps and minima of one head.
#include "kernels/cpu/simd_targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/encode_int.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>
#include <cmath>

#include "kernels/cpu/encode_group-inl.h"
#include "kernels/cpu/encode_kernels.h"
#include "kernels/cpu/fast_fp16.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {

struct Range {
  double min;
  double max;
};

template <int kChannels>
HWY_INLINE Range RangeOf(const Group<kChannels>& group) {
  const DoubleTag d;
  DoubleVec min = group.x[0];
  DoubleVec max = group.x[0];
  Unroll<Group<kChannels>::kVectors>([&](auto i) HWY_ATTR {
    min = hn::Min(min, group.x[i]);
    max = hn::Max(max, group.x[i]);
  });
  HWY_ALIGN double lanes[2][kDoubleLanes];
  hn::Store(min, d, lanes[0]);
  hn::Store(max, d, lanes[1]);
  Range range{lanes[0][0], lanes[1][0]};
  for (int i = 1; i < kDoubleLanes; ++i) {
    range.min = std::min(range.min, lanes[0][i]);
    range.max = std::max(range.max, lanes[1][i]);
  }
  if (range.min == 0) {
    // Which zero is the minimum decides the sign of what is stored: the first, as in the reference.
    HWY_ALIGN double values[kChannels];
    for (int i = 0; i < Group<kChannels>::kVectors; ++i) {
      hn::Store(group.x[i], d, values + i * kDoubleLanes);
    }
    const auto [first, last] = std::minmax_element(values, values + kChannels);
    range = {*first, *last};
  }
  return range;
}

struct Affine {
  double min;
  double step;
};

// Stores the step and the minimum of a group, and returns them as stored.
HWY_INLINE Affine PutAffine(const Range& range, double max_code, int group, int token,
                            uint8_t* scales) {
  const uint16_t min_bits = FastDoubleToFiniteFp16(range.min);
  const double min = FastFp16ToFloat(min_bits);
  const uint16_t step_bits = FastDoubleToFiniteFp16((range.max - min) / max_code);
  PutScale(scales, 2 * group, token, step_bits);
  PutScale(scales, 2 * group + 1, token, min_bits);
  return {min, FastFp16ToFloat(step_bits)};
}

template <int kChannels>
HWY_INLINE void Quantize(const Group<kChannels>& group, const Affine& affine, double max_code,
                         uint8_t* codes) {
  const DoubleTag d;
  const hn::Rebind<int32_t, DoubleTag> d32;
  const hn::Rebind<uint8_t, DoubleTag> d8;
  const auto min = hn::Set(d, affine.min);
  const auto step = hn::Set(d, affine.step);
  const auto half = hn::Set(d, 0.5);
  const auto limit = hn::Set(d, max_code);
  Unroll<Group<kChannels>::kVectors>([&](auto i) HWY_ATTR {
    const auto code = hn::Add(hn::Div(hn::Sub(group.x[i], min), step), half);
    // Conversion truncates, which is floor for what the clamp leaves.
    const auto clamped = hn::Min(hn::Max(code, hn::Zero(d)), limit);
    hn::StoreU(hn::DemoteTo(d8, hn::DemoteTo(d32, clamped)), d8, codes + i * kDoubleLanes);
  });
}

template <int kChannels>
HWY_NOINLINE void EncodeGroups(const CentredHead& head, Codec codec, int group, int begin,
                               uint8_t* codes, uint8_t* scales) {
  const SignBits<double> first_signs(kRotationSigns1);
  const SignBits<double> second_signs(kRotationSigns2);
  const double max_code = (1 << TraitsOf(codec).code_bits) - 1;
  const double inverse_root = 1.0 / std::sqrt(static_cast<double>(kChannels));
  for (int token = 0; token < head.tokens; ++token) {
    Group<kChannels> values;
    LoadCentred(head, token, begin, values);
    FlipSigns(first_signs, values);
    WalshHadamard<Group<kChannels>::kVectors>(DoubleTag(), values.x);
    Multiply(inverse_root, values);
    FlipSigns(second_signs, values);
    const Affine affine = PutAffine(RangeOf(values), max_code, group, token, scales);
    uint8_t* out = codes + token * head.padded_dim + begin;
    if (affine.step == 0) {
      std::fill(out, out + kChannels, 0);
    } else {
      Quantize(values, affine, max_code, out);
    }
  }
}

void EncodeIntImpl(const CentredHead& head, Codec codec, const HeadGroups& groups, uint8_t* codes,
                   uint8_t* scales) {
  for (int group = 0; group < groups.count; ++group) {
    const auto encode = groups.channels[group] == 64 ? EncodeGroups<64> : EncodeGroups<128>;
    encode(head, codec, group, groups.begin(group), codes, scales);
  }
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace turbokv::cpu {

HWY_EXPORT(EncodeIntImpl);

void EncodeInt(const CentredHead& head, Codec codec, const HeadGroups& groups, uint8_t* codes,
               uint8_t* scales) {
  HWY_DYNAMIC_DISPATCH(EncodeIntImpl)(head, codec, groups, codes, scales);
}

}  // namespace turbokv::cpu
#endif  // HWY_ONCE
