// The Walsh-Hadamard transform of a group held in vectors, in double (encode) or float (decode).

#if defined(KERNELS_CPU_ROTATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_ROTATION_INL_H_
#undef KERNELS_CPU_ROTATION_INL_H_
#else
#define KERNELS_CPU_ROTATION_INL_H_
#endif

#include <array>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "hwy/highway.h"
#include "kernels/format/head_groups.h"
#include "kernels/format/rotation.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Calls fn(std::integral_constant<int, I>) for I = 0..kCount-1. Unrolled by construction, so that
// arrays of vectors that fn indexes stay in registers.
template <class Fn, int... kIndices>
HWY_INLINE void Unroll(std::integer_sequence<int, kIndices...>, const Fn& fn) {
  (fn(std::integral_constant<int, kIndices>()), ...);
}
template <int kCount, class Fn>
HWY_INLINE void Unroll(const Fn& fn) {
  Unroll(std::make_integer_sequence<int, kCount>(), fn);
}

// v with lane i moved to lane i ^ kDistance.
template <int kDistance, class D>
HWY_INLINE hn::Vec<D> SwapLanes(D d, hn::Vec<D> v) {
  constexpr int kBytes = kDistance * static_cast<int>(sizeof(hn::TFromD<D>));
  if constexpr (kBytes == 4) {
    return hn::Shuffle2301(v);
  } else if constexpr (kBytes == 8) {
    const hn::Repartition<uint64_t, D> d64;
    return hn::BitCast(d, hn::Shuffle01(hn::BitCast(d64, v)));
#if HWY_MAX_BYTES >= 32
  } else if constexpr (kBytes == 16) {
    return hn::SwapAdjacentBlocks(v);
#endif
  } else {
    return hn::ConcatLowerUpper(d, v, v);
  }
}

// Factors 1 and -1: -1 in the lanes that subtract in a stage of stride kDistance.
template <int kDistance, class D>
HWY_INLINE hn::Vec<D> StageSigns(D d) {
  using T = hn::TFromD<D>;
  HWY_ALIGN T signs[hn::MaxLanes(D())];
  for (int i = 0; i < static_cast<int>(hn::MaxLanes(D())); ++i) signs[i] = i & kDistance ? -1 : 1;
  return hn::Load(d, signs);
}

// One stage inside vectors. The product with +-1 is exact: every result is rounded once, as a sum.
template <int kDistance, int kVectors, class D>
HWY_INLINE void LaneStage(D d, hn::Vec<D>* x) {
  const auto signs = StageSigns<kDistance>(d);
  Unroll<kVectors>([&](auto i)
                       HWY_ATTR { x[i] = hn::MulAdd(x[i], signs, SwapLanes<kDistance>(d, x[i])); });
}

// One stage between vectors kStride apart, and those after it.
template <int kStride, int kVectors, class D>
HWY_INLINE void VectorStages(D d, hn::Vec<D>* x) {
  if constexpr (kStride < kVectors) {
    Unroll<kVectors / 2>([&](auto i) HWY_ATTR {
      constexpr int kLow = i / kStride * 2 * kStride + i % kStride;
      const auto a = x[kLow];
      const auto b = x[kLow + kStride];
      x[kLow] = hn::Add(a, b);
      x[kLow + kStride] = hn::Sub(a, b);
    });
    VectorStages<2 * kStride, kVectors>(d, x);
  }
}

// H x, unnormalised, natural order, stages of stride 1, 2, 4... as in the reference.
template <int kVectors, class D>
HWY_INLINE void WalshHadamard(D d, hn::Vec<D>* x) {
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
  static_assert(kLanes >= 2 && kLanes <= 16);
  LaneStage<1, kVectors>(d, x);
  if constexpr (kLanes > 2) LaneStage<2, kVectors>(d, x);
  if constexpr (kLanes > 4) LaneStage<4, kVectors>(d, x);
  if constexpr (kLanes > 8) LaneStage<8, kVectors>(d, x);
  VectorStages<1, kVectors>(d, x);
}

// The rotation's signs as sign bits, to be XORed.
template <class T>
struct SignBits {
  explicit SignBits(const std::array<uint8_t, 16>& mask) {
    for (int i = 0; i < kMaxGroupChannels; ++i)
      bits[i] = RotationSign(mask, i) < 0 ? T{-0.0} : T{0};
  }
  HWY_ALIGN T bits[kMaxGroupChannels];
};

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_ROTATION_INL_H_
