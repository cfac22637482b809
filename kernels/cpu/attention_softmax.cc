// Between the two products: dots to scores, scores to weights.
#include "kernels/cpu/simd_targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_softmax.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>
#include <limits>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/load_values-inl.h"
#include "kernels/cpu/tile_order.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {

constexpr int kLanes = static_cast<int>(hn::MaxLanes(ValueTag()));
using ValueVec = hn::Vec<ValueTag>;

// exp(x) for x <= 0, within 2e-7 relative; 0 below -87, where floats end. After Cephes' expf.
HWY_INLINE ValueVec ExpNonPositive(ValueVec x) {
  const ValueTag d;
  const auto clamped = hn::Max(x, hn::Set(d, -87.0f));
  const auto power = hn::NearestInt(hn::Mul(clamped, hn::Set(d, 1.44269504f)));
  const auto whole = hn::ConvertTo(d, power);
  auto r = hn::NegMulAdd(whole, hn::Set(d, 0.693359375f), clamped);  // ln 2 in two parts
  r = hn::NegMulAdd(whole, hn::Set(d, -2.12194440e-4f), r);
  auto p = hn::MulAdd(hn::Set(d, 1.9875691500e-4f), r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::MulAdd(p, hn::Mul(r, r), hn::Add(r, hn::Set(d, 1.0f)));
  const auto exponent = hn::ShiftLeft<23>(power);
  const auto result =
      hn::BitCast(d, hn::Add(hn::BitCast(hn::RebindToSigned<ValueTag>(), p), exponent));
  return hn::IfThenElseZero(hn::Ge(x, hn::Set(d, -87.0f)), result);
}

// cap * tanh(score / cap)
HWY_INLINE ValueVec SoftCap(ValueVec score, float cap) {
  const ValueTag d;
  const auto one = hn::Set(d, 1.0f);
  const auto magnitude = hn::Abs(hn::Mul(score, hn::Set(d, 1.0f / cap)));
  const auto e = ExpNonPositive(hn::Mul(magnitude, hn::Set(d, -2.0f)));
  const auto tanh = hn::Div(hn::Sub(one, e), hn::Add(one, e));
  return hn::CopySign(hn::Mul(hn::Set(d, cap), tanh), score);
}

// Rows of four tokens t become rows of four i: position 16h + 4t + i to index 4(4h + i) + t.
HWY_INLINE void StoreInTileOrder(const float* in_order, float* out) {
  const hn::Full128<float> d;
  const hn::Full128<double> dw;
  const auto a = hn::LoadU(d, in_order);
  const auto b = hn::LoadU(d, in_order + 4);
  const auto c = hn::LoadU(d, in_order + 8);
  const auto e = hn::LoadU(d, in_order + 12);
  const auto ab_low = hn::BitCast(dw, hn::InterleaveLower(d, a, b));
  const auto ab_high = hn::BitCast(dw, hn::InterleaveUpper(d, a, b));
  const auto ce_low = hn::BitCast(dw, hn::InterleaveLower(d, c, e));
  const auto ce_high = hn::BitCast(dw, hn::InterleaveUpper(d, c, e));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dw, ab_low, ce_low)), d, out);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dw, ab_low, ce_low)), d, out + 4);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dw, ab_high, ce_high)), d, out + 8);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dw, ab_high, ce_high)), d, out + 12);
}

void LoadTileScalesImpl(const uint8_t* fp16_scales, float factor, int count, float* scales) {
  constexpr int kStep = 16;
  const ValueTag d;
  const auto largest = hn::Set(d, std::numeric_limits<float>::max());
  const auto* halves = reinterpret_cast<const uint16_t*>(fp16_scales);
  for (int begin = 0; begin < count; begin += kStep) {
    HWY_ALIGN float in_order[kStep];
    for (int i = 0; i < kStep; i += kLanes) {
      const auto scale = hn::Mul(Fp16Source::Load(d, halves + begin + i), hn::Set(d, factor));
      hn::Store(hn::Max(hn::Min(scale, largest), hn::Neg(largest)), d, in_order + i);
    }
    StoreInTileOrder(in_order, scales + begin);
  }
}

float CombineScoresImpl(const ScoreTerms& terms, int count, float* scores) {
  const ValueTag d;
  const auto limit = hn::Set(d, std::numeric_limits<float>::max());
  auto largest = hn::Neg(limit);
  for (int i = 0; i < count; i += kLanes) {
    auto score = hn::Set(d, terms.bias);
    for (int s = 0; s < terms.scale_count; ++s) {
      const int at = s * kPageTokens + i;
      const auto scale = hn::LoadU(d, terms.scales + at);
      score = hn::MulAdd(hn::LoadU(d, terms.dots + at), scale, score);
      if (terms.minima != nullptr) {
        const auto min = hn::LoadU(d, terms.minima + at);
        score = hn::MulAdd(hn::Set(d, terms.q_sums[s]), min, score);
      }
    }
    score = hn::Max(hn::Min(score, limit), hn::Neg(limit));
    if (terms.soft_cap != 0) score = SoftCap(score, terms.soft_cap);
    largest = hn::Max(largest, score);
    hn::StoreU(score, d, scores + i);
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

float LargestScoreImpl(const float* scores, int count) {
  const ValueTag d;
  auto largest = hn::LoadU(d, scores);
  for (int i = kLanes; i < count; i += kLanes) {
    largest = hn::Max(largest, hn::LoadU(d, scores + i));
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

WeightSums ExpWeightsImpl(const float* scores, int count, float largest, float threshold,
                          float* weights) {
  const ValueTag d;
  auto sum = hn::Zero(d);
  auto kept = hn::Zero(d);
  for (int i = 0; i < count; i += kLanes) {
    const auto weight = ExpNonPositive(hn::Sub(hn::LoadU(d, scores + i), hn::Set(d, largest)));
    sum = hn::Add(sum, weight);
    const auto is_kept = hn::Ge(weight, hn::Set(d, threshold));
    const auto result = hn::IfThenElseZero(is_kept, weight);
    kept = hn::Max(kept, result);
    hn::StoreU(result, d, weights + i);
  }
  return {hn::GetLane(hn::SumOfLanes(d, sum)), hn::GetLane(hn::MaxOfLanes(d, kept)) > 0};
}

WeightNorms MultiplyWeightsImpl(const float* weights, const float* scales, int count,
                                float* products) {
  const ValueTag d;
  const hn::Full128<float> d4;
  auto largest = hn::Zero(d);
  auto sums = hn::Zero(d);
  auto squares = hn::Zero(d);
  for (int i = 0; i < count; i += kLanes) {
    const auto product = hn::Mul(hn::LoadU(d, weights + i), hn::LoadU(d, scales + i));
    const auto magnitude = hn::Abs(product);
    largest = hn::Max(largest, magnitude);
    sums = hn::Add(sums, magnitude);
    squares = hn::MulAdd(product, product, squares);
    hn::StoreU(product, d, products + i);
  }
  HWY_ALIGN float lanes[kLanes];
  hn::Store(sums, d, lanes);
  auto part_sums = hn::Load(d4, lanes);
  for (int i = 4; i < kLanes; i += 4) part_sums = hn::Add(part_sums, hn::Load(d4, lanes + i));
  const float largest_part = hn::GetLane(hn::MaxOfLanes(d4, part_sums));
  return {std::max(hn::GetLane(hn::MaxOfLanes(d, largest)), RangeOfPart(largest_part)),
          hn::GetLane(hn::SumOfLanes(d, squares))};
}

float DotImpl(const float* a, const float* b, int count) {
  const ValueTag d;
  auto sum = hn::Zero(d);
  for (int i = 0; i < count; i += kLanes) {
    sum = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace turbokv::cpu {

HWY_EXPORT(LoadTileScalesImpl);
HWY_EXPORT(CombineScoresImpl);
HWY_EXPORT(LargestScoreImpl);
HWY_EXPORT(ExpWeightsImpl);
HWY_EXPORT(MultiplyWeightsImpl);
HWY_EXPORT(DotImpl);

void LoadTileScales(const uint8_t* fp16_scales, float factor, int count, float* scales) {
  HWY_DYNAMIC_DISPATCH(LoadTileScalesImpl)(fp16_scales, factor, count, scales);
}

float CombineScores(const ScoreTerms& terms, int count, float* scores) {
  return HWY_DYNAMIC_DISPATCH(CombineScoresImpl)(terms, count, scores);
}

float LargestScore(const float* scores, int count) {
  return HWY_DYNAMIC_DISPATCH(LargestScoreImpl)(scores, count);
}

WeightSums ExpWeights(const float* scores, int count, float largest, float threshold,
                      float* weights) {
  return HWY_DYNAMIC_DISPATCH(ExpWeightsImpl)(scores, count, largest, threshold, weights);
}

WeightNorms MultiplyWeights(const float* weights, const float* scales, int count, float* products) {
  return HWY_DYNAMIC_DISPATCH(MultiplyWeightsImpl)(weights, scales, count, products);
}

float Dot(const float* a, const float* b, int count) {
  return HWY_DYNAMIC_DISPATCH(DotImpl)(a, b, count);
}

}  // namespace turbokv::cpu
#endif  // HWY_ONCE
