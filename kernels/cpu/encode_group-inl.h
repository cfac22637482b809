// What turboN and intN encoders share: a group in vectors of double, centred and rotated.

#if defined(KERNELS_CPU_ENCODE_GROUP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_ENCODE_GROUP_INL_H_
#undef KERNELS_CPU_ENCODE_GROUP_INL_H_
#else
#define KERNELS_CPU_ENCODE_GROUP_INL_H_
#endif

#include <cstring>

#include "kernels/cpu/encode_kernels.h"
#include "kernels/cpu/rotation-inl.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {

// Eight lanes at most: lane i of a vector then holds values of one partial sum (i % 8).
using DoubleTag = hn::CappedTag<double, 8>;
using DoubleVec = hn::Vec<DoubleTag>;
constexpr int kDoubleLanes = static_cast<int>(hn::MaxLanes(DoubleTag()));
// Vectors that together hold the eight partial sums.
constexpr int kSumVectors = 8 / kDoubleLanes;

template <int kChannels>
struct Group {
  static constexpr int kVectors = kChannels / kDoubleLanes;
  DoubleVec x[kVectors];
};

// Adds squares to eight partial sums in the reference's order.
class SquareSum {
 public:
  SquareSum() {
    for (auto& sum : sums_) sum = hn::Zero(DoubleTag());
  }
  HWY_INLINE void Add(int vector, DoubleVec square) {
    DoubleVec& sum = sums_[vector % kSumVectors];
    sum = hn::Add(sum, square);
  }
  HWY_INLINE double Total() const {
    HWY_ALIGN double p[8];
    for (int i = 0; i < kSumVectors; ++i) {
      hn::Store(sums_[i], DoubleTag(), p + i * kDoubleLanes);
    }
    return ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
  }

 private:
  DoubleVec sums_[kSumVectors];
};

template <int kChannels>
HWY_INLINE void LoadCentred(const CentredHead& head, int token, int begin,
                            Group<kChannels>& group) {
  const DoubleTag d;
  const hn::Rebind<float, DoubleTag> df;
  const float* values = head.values + token * head.padded_dim + begin;
  const double* mean = head.mean + begin;
  const auto factor = hn::Set(d, head.factor);
  Unroll<Group<kChannels>::kVectors>([&](auto i) HWY_ATTR {
    const auto value = hn::PromoteTo(d, hn::LoadU(df, values + i * kDoubleLanes));
    // The product with a power of two is exact.
    group.x[i] = hn::MulSub(value, factor, hn::LoadU(d, mean + i * kDoubleLanes));
  });
}

template <int kChannels>
HWY_INLINE void FlipSigns(const SignBits<double>& signs, Group<kChannels>& group) {
  const DoubleTag d;
  Unroll<Group<kChannels>::kVectors>([&](auto i) HWY_ATTR {
    group.x[i] = hn::Xor(group.x[i], hn::Load(d, signs.bits + i * kDoubleLanes));
  });
}

template <int kChannels>
HWY_INLINE void Multiply(double factor, Group<kChannels>& group) {
  const auto factors = hn::Set(DoubleTag(), factor);
  Unroll<Group<kChannels>::kVectors>([&](auto i)
                                         HWY_ATTR { group.x[i] = hn::Mul(group.x[i], factors); });
}

HWY_INLINE void PutScale(uint8_t* scales, int row, int token, uint16_t bits) {
  std::memcpy(scales + (static_cast<size_t>(row) * kPageTokens + token) * 2, &bits, sizeof(bits));
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_ENCODE_GROUP_INL_H_
