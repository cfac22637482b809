// From codes to values of one head, and rotations of single vectors.
#include "kernels/cpu/simd_targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/decode_head.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/code_readers-inl.h"
#include "kernels/cpu/decode_kernels.h"
#include "kernels/cpu/fast_fp16.h"
#include "kernels/cpu/load_values-inl.h"
#include "kernels/cpu/reader_table.h"
#include "kernels/cpu/rotation-inl.h"
#include "kernels/format/head_groups.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {

constexpr int kValueLanes = static_cast<int>(hn::MaxLanes(ValueTag()));
using ValueVec = hn::Vec<ValueTag>;

// Calls to_float(words) for the codes, widened to a word each.
template <class Code, class Fn>
HWY_INLINE void ForEachWord(const void* codes, size_t count, float* values, const Fn& to_float) {
  const hn::Rebind<Code, ValueTag> dc;
  const hn::RebindToUnsigned<ValueTag> du;
  const auto* from = static_cast<const Code*>(codes);
  for (size_t i = 0; i < count; i += kValueLanes) {
    const auto words = hn::PromoteTo(du, hn::LoadU(dc, from + i));
    hn::StoreU(to_float(words), ValueTag(), values + i);
  }
}

void CodesToFloatsImpl(Codec codec, const void* codes, size_t count, float* values) {
  using Words = hn::Vec<hn::RebindToUnsigned<ValueTag>>;
  const ValueTag d;
  const hn::RebindToSigned<ValueTag> di;
  switch (codec) {
    case Codec::kTurbo2:
    case Codec::kTurbo3:
    case Codec::kTurbo4:
    case Codec::kQ4_0: {
      const std::array<float, 16>& entries = ReaderTable(codec);
      const FloatTable<16> table(entries.data());
      return ForEachWord<uint8_t>(codes, count, values,
                                  [&](Words w) HWY_ATTR { return table.Lookup(w); });
    }
    case Codec::kQ8_0:
      return ForEachWord<uint8_t>(codes, count, values, [&](Words w) HWY_ATTR {
        const auto at_top = hn::BitCast(di, hn::ShiftLeft<24>(w));
        return hn::ConvertTo(d, hn::ShiftRight<24>(at_top));
      });
    case Codec::kFp8E4m3:
      return ForEachWord<uint8_t>(codes, count, values, [&](Words w) HWY_ATTR {
        return WidenSmallFloat<4>(d, hn::ShiftLeft<24>(w), 0x1p120f);
      });
    case Codec::kBf16:
      return ForEachWord<uint16_t>(codes, count, values, [&](Words w) HWY_ATTR {
        return hn::BitCast(d, hn::ShiftLeft<16>(w));
      });
    case Codec::kFp16:
      return ForEachWord<uint16_t>(codes, count, values, [&](Words w) HWY_ATTR {
        return WidenSmallFloat<3>(d, hn::ShiftLeft<16>(w), 0x1p112f);
      });
    default:  // intN
      return ForEachWord<uint8_t>(codes, count, values, [&](Words w) HWY_ATTR {
        return hn::ConvertTo(d, hn::BitCast(di, w));
      });
  }
}

HWY_INLINE float ScaleAt(const uint8_t* scales, int row, int token) {
  uint16_t bits;
  std::memcpy(&bits, scales + (static_cast<size_t>(row) * kPageTokens + token) * 2, sizeof(bits));
  return FastFp16ToFloat(bits);
}

// values = outer * H(inner * (values * step + min)) / sqrt(n) of one group: the rotation with
// s1 inside and s2 outside, its reverse the other way round.
template <int kChannels>
HWY_INLINE void RotateScaled(float step, float min, const SignBits<float>& inner,
                             const SignBits<float>& outer, float* values) {
  constexpr int kVectors = kChannels / kValueLanes;
  const ValueTag d;
  ValueVec x[kVectors];
  Unroll<kVectors>([&](auto i) HWY_ATTR {
    const auto y =
        hn::MulAdd(hn::LoadU(d, values + i * kValueLanes), hn::Set(d, step), hn::Set(d, min));
    x[i] = hn::Xor(y, hn::Load(d, inner.bits + i * kValueLanes));
  });
  WalshHadamard<kVectors>(d, x);
  const auto factor = hn::Set(d, static_cast<float>(1.0 / std::sqrt(double{kChannels})));
  Unroll<kVectors>([&](auto i) HWY_ATTR {
    const auto signs = hn::Load(d, outer.bits + i * kValueLanes);
    hn::StoreU(hn::Xor(hn::Mul(x[i], factor), signs), d, values + i * kValueLanes);
  });
}

struct RotationSigns {
  SignBits<float> first{kRotationSigns1};
  SignBits<float> second{kRotationSigns2};
};

const RotationSigns& Signs() {
  static const RotationSigns signs;
  return signs;
}

HWY_INLINE void Rotate(int channels, float* values) {
  const auto rotate = channels == 64 ? RotateScaled<64> : RotateScaled<128>;
  rotate(1, 0, Signs().first, Signs().second, values);
}

HWY_INLINE void Unrotate(int channels, float step, float min, float* values) {
  const auto rotate = channels == 64 ? RotateScaled<64> : RotateScaled<128>;
  rotate(step, min, Signs().second, Signs().first, values);
}

void RotateRowImpl(const HeadGroups& groups, float* values) {
  for (int group = 0; group < groups.count; ++group) {
    Rotate(groups.channels[group], values + groups.begin(group));
  }
}

void UnrotateRowImpl(const HeadGroups& groups, float* values) {
  for (int group = 0; group < groups.count; ++group) {
    Unrotate(groups.channels[group], 1, 0, values + groups.begin(group));
  }
}

HWY_INLINE void UnrotateToken(Codec codec, const uint8_t* scales, const HeadGroups& groups,
                              int token, float* values) {
  const bool affine = TraitsOf(codec).scale_kind == ScaleKind::kGroupStepMinFp16;
  for (int group = 0; group < groups.count; ++group) {
    float step, min = 0;
    if (affine) {
      step = ScaleAt(scales, 2 * group, token);
      min = ScaleAt(scales, 2 * group + 1, token);
    } else {
      step =
          ScaleAt(scales, group, token) * static_cast<float>(CentroidScale(groups.channels[group]));
    }
    Unrotate(groups.channels[group], step, min, values + groups.begin(group));
  }
}

HWY_INLINE void Multiply(float scale, int count, float* values) {
  const ValueTag d;
  for (int i = 0; i < count; i += kValueLanes) {
    hn::StoreU(hn::Mul(hn::LoadU(d, values + i), hn::Set(d, scale)), d, values + i);
  }
}

void ScaleAndUnrotateImpl(Codec codec, const uint8_t* scales, int tokens, int head_dim,
                          int padded_dim, float* values) {
  const CodecTraits& traits = TraitsOf(codec);
  const HeadGroups groups = GroupsOf(head_dim);
  for (int token = 0; token < tokens; ++token, values += padded_dim) {
    if (traits.rotated) {
      UnrotateToken(codec, scales, groups, token, values);
    } else if (traits.scale_kind == ScaleKind::kHeadFp32) {
      float scale;
      std::memcpy(&scale, scales, sizeof(scale));
      Multiply(scale, padded_dim, values);
    } else if (traits.scale_kind == ScaleKind::kBlockFp16) {
      for (int c = 0; c < padded_dim; c += kScaleBlockChannels) {
        const float scale = ScaleAt(scales, c / kScaleBlockChannels, token);
        Multiply(scale, kScaleBlockChannels, values + c);
      }
    }
  }
}

void AddMeanImpl(const float* values, const float* mean, int head_dim, float* out) {
  const ValueTag d;
  const auto largest = hn::Set(d, std::numeric_limits<float>::max());
  for (int c = 0; c < head_dim; c += kValueLanes) {
    const auto sum = hn::Add(hn::LoadU(d, values + c), hn::LoadU(d, mean + c));
    hn::StoreU(hn::Max(hn::Min(sum, largest), hn::Neg(largest)), d, out + c);
  }
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace turbokv::cpu {

HWY_EXPORT(CodesToFloatsImpl);
HWY_EXPORT(ScaleAndUnrotateImpl);
HWY_EXPORT(AddMeanImpl);
HWY_EXPORT(RotateRowImpl);
HWY_EXPORT(UnrotateRowImpl);

void CodesToFloats(Codec codec, const void* codes, size_t count, float* values) {
  HWY_DYNAMIC_DISPATCH(CodesToFloatsImpl)(codec, codes, count, values);
}

void ScaleAndUnrotate(Codec codec, const uint8_t* scales, int tokens, int head_dim, int padded_dim,
                      float* values) {
  HWY_DYNAMIC_DISPATCH(ScaleAndUnrotateImpl)(codec, scales, tokens, head_dim, padded_dim, values);
}

void AddMean(const float* values, const float* mean, int head_dim, float* out) {
  HWY_DYNAMIC_DISPATCH(AddMeanImpl)(values, mean, head_dim, out);
}

void RotateRow(const HeadGroups& groups, float* values) {
  HWY_DYNAMIC_DISPATCH(RotateRowImpl)(groups, values);
}

void UnrotateRow(const HeadGroups& groups, float* values) {
  HWY_DYNAMIC_DISPATCH(UnrotateRowImpl)(groups, values);
}

}  // namespace turbokv::cpu
#endif  // HWY_ONCE
