// turbo2, turbo3, turbo4: codes and scales of one head.
#include "kernels/cpu/simd_targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/encode_turbo.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <cmath>

#include "kernels/cpu/encode_group-inl.h"
#include "kernels/cpu/encode_kernels.h"
#include "kernels/cpu/fast_fp16.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {

using CodeTag = hn::RebindToUnsigned<DoubleTag>;
using CodeVec = hn::Vec<CodeTag>;

// Finds the nearest centroid: the code is the number of thresholds that are not above a value.
template <int kBits>
class Codebook {
 public:
  Codebook(Codec codec, int channels) {
    const double scale = CentroidScale(channels);
    for (int i = 0; i < kThresholds; ++i) thresholds_[i] = TurboThresholds(codec)[i] * scale;
    for (int i = 0; i <= kThresholds; ++i) {
      const double centroid = TurboCentroids(codec)[i] * scale;
      squares_[i] = centroid * centroid;
    }
    for (int level = 0; level < kBits; ++level) {
      for (int i = 0; i < 8; ++i) {
        const int prefix = i % (1 << level);
        levels_[level][i] = thresholds_[(2 * prefix + 1) * (1 << (kBits - 1 - level)) - 1];
      }
    }
    for (int i = 0; i < 8; ++i) folded_squares_[i] = squares_[kHalf + i % kHalf];
  }

  HWY_INLINE void Find(DoubleVec y, CodeVec& code, DoubleVec& square) const {
    if constexpr (kDoubleLanes == 8) {
      code = Descend(y);
      square = LookupFolded(code);
    } else {
      code = Count(y);
      const hn::RebindToSigned<DoubleTag> di;
      square = hn::GatherIndex(DoubleTag(), squares_, hn::BitCast(di, code));
    }
  }

 private:
  static constexpr int kThresholds = (1 << kBits) - 1;
  static constexpr int kHalf = 1 << (kBits - 1);

  // Binary search: every level looks its threshold up by the bits found so far.
  HWY_INLINE CodeVec Descend(DoubleVec y) const {
    const DoubleTag d;
    const CodeTag du;
    const auto one = hn::Set(du, uint64_t{1});
    const auto bit = [&](DoubleVec threshold) HWY_ATTR {
      return hn::IfThenElseZero(hn::RebindMask(du, hn::Ge(y, threshold)), one);
    };
    CodeVec code = bit(hn::Load(d, levels_[0]));
    for (int level = 1; level < kBits; ++level) {
      const auto table = hn::Load(d, levels_[level]);
      const auto threshold = hn::TableLookupLanes(table, hn::IndicesFromVec(d, code));
      code = hn::Add(hn::Add(code, code), bit(threshold));
    }
    return code;
  }

  // Centroids are symmetric, so their squares need half of the table.
  HWY_INLINE DoubleVec LookupFolded(CodeVec code) const {
    const DoubleTag d;
    const CodeTag du;
    const auto last = hn::Set(du, uint64_t{kHalf - 1});
    const hn::RebindToSigned<DoubleTag> di;
    const auto is_low =
        hn::RebindMask(du, hn::Lt(hn::BitCast(di, code), hn::Set(di, int64_t{kHalf})));
    const auto folded = hn::And(hn::Xor(code, hn::IfThenElseZero(is_low, last)), last);
    return hn::TableLookupLanes(hn::Load(d, folded_squares_), hn::IndicesFromVec(d, folded));
  }

  HWY_INLINE CodeVec Count(DoubleVec y) const {
    const DoubleTag d;
    const CodeTag du;
    CodeVec code = hn::Zero(du);
    for (double threshold : thresholds_) {
      const auto not_above = hn::Ge(y, hn::Set(d, threshold));
      code = hn::Sub(code, hn::BitCast(du, hn::VecFromMask(d, not_above)));
    }
    return code;
  }

  HWY_ALIGN double levels_[kBits][8];
  HWY_ALIGN double folded_squares_[8];
  double squares_[kThresholds + 1];
  double thresholds_[kThresholds];
};

struct RotationSigns {
  SignBits<double> first{kRotationSigns1};
  SignBits<double> second{kRotationSigns2};
};

// Returns the scale of one group and writes its codes.
template <int kBits, int kChannels>
HWY_INLINE double EncodeGroup(const CentredHead& head, const Codebook<kBits>& codebook,
                              const RotationSigns& signs, int token, int begin, uint8_t* codes) {
  constexpr int kVectors = Group<kChannels>::kVectors;
  const hn::Rebind<uint8_t, CodeTag> d8;
  Group<kChannels> group;
  LoadCentred(head, token, begin, group);
  SquareSum squares;
  Unroll<kVectors>([&](auto i) HWY_ATTR { squares.Add(i, hn::Mul(group.x[i], group.x[i])); });
  FlipSigns(signs.first, group);
  WalshHadamard<kVectors>(DoubleTag(), group.x);

  const double norm = std::sqrt(squares.Total());
  const double root_channels = std::sqrt(static_cast<double>(kChannels));
  const double divisor = norm > kMinNormalizableNorm ? norm * root_channels : root_channels;
  Multiply(1.0 / divisor, group);
  FlipSigns(signs.second, group);

  SquareSum centroid_squares;
  Unroll<kVectors>([&](auto i) HWY_ATTR {
    CodeVec code;
    DoubleVec square;
    codebook.Find(group.x[i], code, square);
    centroid_squares.Add(i, square);
    hn::StoreU(hn::TruncateTo(d8, code), d8, codes + i * kDoubleLanes);
  });
  return norm / std::sqrt(centroid_squares.Total());
}

template <int kBits, int kChannels>
HWY_NOINLINE void EncodeGroups(const CentredHead& head, Codec codec, int group, int begin,
                               uint8_t* codes, uint8_t* scales) {
  const Codebook<kBits> codebook(codec, kChannels);
  const RotationSigns signs;
  for (int token = 0; token < head.tokens; ++token) {
    const double scale = EncodeGroup<kBits, kChannels>(head, codebook, signs, token, begin,
                                                       codes + token * head.padded_dim + begin);
    PutScale(scales, group, token, FastDoubleToFiniteFp16(scale));
  }
}

template <int kBits>
void EncodeAllGroups(const CentredHead& head, Codec codec, const HeadGroups& groups, uint8_t* codes,
                     uint8_t* scales) {
  for (int group = 0; group < groups.count; ++group) {
    const auto encode =
        groups.channels[group] == 64 ? EncodeGroups<kBits, 64> : EncodeGroups<kBits, 128>;
    encode(head, codec, group, groups.begin(group), codes, scales);
  }
}

void EncodeTurboImpl(const CentredHead& head, Codec codec, const HeadGroups& groups, uint8_t* codes,
                     uint8_t* scales) {
  if (codec == Codec::kTurbo2) return EncodeAllGroups<2>(head, codec, groups, codes, scales);
  if (codec == Codec::kTurbo3) return EncodeAllGroups<3>(head, codec, groups, codes, scales);
  EncodeAllGroups<4>(head, codec, groups, codes, scales);
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace turbokv::cpu {

HWY_EXPORT(EncodeTurboImpl);

void EncodeTurbo(const CentredHead& head, Codec codec, const HeadGroups& groups, uint8_t* codes,
                 uint8_t* scales) {
  HWY_DYNAMIC_DISPATCH(EncodeTurboImpl)(head, codec, groups, codes, scales);
}

}  // namespace turbokv::cpu
#endif  // HWY_ONCE
