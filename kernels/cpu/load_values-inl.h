// Values of any source type as floats, exactly.

#if defined(KERNELS_CPU_LOAD_VALUES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_LOAD_VALUES_INL_H_
#undef KERNELS_CPU_LOAD_VALUES_INL_H_
#else
#define KERNELS_CPU_LOAD_VALUES_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/kv_view.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Every head_dim and padded_dim is a multiple of 16.
using ValueTag = hn::CappedTag<float, 16>;

// A float whose sign is the top bit of `word` and whose magnitude is (word's other bits >> kShift)
// x scale: how a small float at the top of a word widens, subnormals included, infinities not.
template <int kShift, class D>
HWY_INLINE hn::Vec<D> WidenSmallFloat(D d, hn::Vec<hn::RebindToUnsigned<D>> word, float scale) {
  const hn::RebindToUnsigned<D> du;
  const auto sign_bit = hn::Set(du, 0x80000000u);
  const auto magnitude = hn::ShiftRight<kShift>(hn::AndNot(sign_bit, word));
  const auto bits = hn::Or(hn::And(word, sign_bit), magnitude);
  return hn::Mul(hn::BitCast(d, bits), hn::Set(d, scale));
}

struct Bf16Source {
  using Type = uint16_t;
  static constexpr Type kMagnitudeMask = 0x7fff;
  static constexpr Type kInfinity = 0x7f80;
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const Type* from) {
    const hn::RebindToUnsigned<D> du;
    const hn::Rebind<uint16_t, D> dh;
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, from))));
  }
};

struct Fp16Source {
  using Type = uint16_t;
  static constexpr Type kMagnitudeMask = 0x7fff;
  static constexpr Type kInfinity = 0x7c00;
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const Type* from) {
    const hn::RebindToUnsigned<D> du;
    const hn::Rebind<uint16_t, D> dh;
    const auto at_top = hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, from)));
    return WidenSmallFloat<3>(d, at_top, 0x1p112f);
  }
};

struct Fp32Source {
  using Type = uint32_t;
  static constexpr Type kMagnitudeMask = 0x7fffffff;
  static constexpr Type kInfinity = 0x7f800000;
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const Type* from) {
    return hn::BitCast(d, hn::LoadU(hn::RebindToUnsigned<D>(), from));
  }
};

// Calls fn(Source()) with the struct above that reads `type`.
template <class Fn>
HWY_INLINE void WithSource(ValueType type, const Fn& fn) {
  if (type == ValueType::kBf16) return fn(Bf16Source());
  if (type == ValueType::kFp16) return fn(Fp16Source());
  return fn(Fp32Source());
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_LOAD_VALUES_INL_H_
