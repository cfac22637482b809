// Reading one head's values: largest magnitude, conversion to float, sums over tokens.
#include "kernels/cpu/simd_targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/load_head.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/cpu/encode_kernels.h"
#include "kernels/cpu/load_values-inl.h"
#include "kernels/format/small_floats.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {

// The largest value's bits without the sign: magnitudes compare like their bits, and those of
// infinities and NaNs are the largest.
template <class Source>
HWY_INLINE uint32_t LargestMagnitudeBits(const HeadSource& source) {
  using T = typename Source::Type;
  const hn::CappedTag<T, 16> d;
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(hn::CappedTag<T, 16>()));
  const auto mask = hn::Set(d, Source::kMagnitudeMask);
  auto largest = hn::Zero(d);
  for (int token = 0; token < source.tokens; ++token) {
    const T* row = static_cast<const T*>(source.data) + token * source.token_stride;
    for (int c = 0; c < source.head_dim; c += kLanes) {
      largest = hn::Max(largest, hn::And(hn::LoadU(d, row + c), mask));
    }
  }
  HWY_ALIGN T lanes[kLanes];
  hn::Store(largest, d, lanes);
  return *std::max_element(lanes, lanes + kLanes);
}

float LargestMagnitudeImpl(const HeadSource& source) {
  float result = 0;
  WithSource(source.type, [&](auto reader) HWY_ATTR {
    using Source = decltype(reader);
    const uint32_t bits = LargestMagnitudeBits<Source>(source);
    if (bits >= Source::kInfinity) {
      result = std::numeric_limits<float>::infinity();
    } else if (source.type == ValueType::kFp32) {
      std::memcpy(&result, &bits, sizeof(result));
    } else {
      const uint16_t half = static_cast<uint16_t>(bits);
      result = source.type == ValueType::kBf16 ? Bf16ToFloat(half) : Fp16ToFloat(half);
    }
  });
  return result;
}

void LoadHeadImpl(const HeadSource& source, int padded_dim, float* values) {
  const ValueTag d;
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(ValueTag()));
  WithSource(source.type, [&](auto reader) HWY_ATTR {
    using Source = decltype(reader);
    for (int token = 0; token < source.tokens; ++token) {
      const auto* row =
          static_cast<const typename Source::Type*>(source.data) + token * source.token_stride;
      float* out = values + token * padded_dim;
      for (int c = 0; c < source.head_dim; c += kLanes) {
        hn::StoreU(Source::Load(d, row + c), d, out + c);
      }
      std::fill(out + source.head_dim, out + padded_dim, 0.0f);
    }
  });
}

void SumTokensImpl(const float* values, int tokens, int padded_dim, double* sums) {
  using D = hn::CappedTag<double, 8>;
  const D d;
  const hn::Rebind<float, D> df;
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
  constexpr int kVectors = 4;  // kVectors * kLanes divides every padded_dim
  for (int c = 0; c < padded_dim; c += kVectors * kLanes) {
    hn::Vec<D> totals[kVectors];
    for (auto& total : totals) total = hn::Zero(d);
    for (int token = 0; token < tokens; ++token) {
      const float* row = values + token * padded_dim + c;
      for (int i = 0; i < kVectors; ++i) {
        totals[i] = hn::Add(totals[i], hn::PromoteTo(d, hn::LoadU(df, row + i * kLanes)));
      }
    }
    for (int i = 0; i < kVectors; ++i) hn::StoreU(totals[i], d, sums + c + i * kLanes);
  }
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace turbokv::cpu {

HWY_EXPORT(LargestMagnitudeImpl);
HWY_EXPORT(LoadHeadImpl);
HWY_EXPORT(SumTokensImpl);

float LargestMagnitude(const HeadSource& source) {
  return HWY_DYNAMIC_DISPATCH(LargestMagnitudeImpl)(source);
}

void LoadHead(const HeadSource& source, int padded_dim, float* values) {
  HWY_DYNAMIC_DISPATCH(LoadHeadImpl)(source, padded_dim, values);
}

void SumTokens(const float* values, int tokens, int padded_dim, double* sums) {
  HWY_DYNAMIC_DISPATCH(SumTokensImpl)(values, tokens, padded_dim, sums);
}

}  // namespace turbokv::cpu
#endif  // HWY_ONCE
