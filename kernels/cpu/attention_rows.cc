// Products with vectors that are not packed: the tail, K means, and sums at the end.
#include "kernels/cpu/simd_targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_rows.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/load_values-inl.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {

constexpr int kLanes = static_cast<int>(hn::MaxLanes(ValueTag()));

void DotRowsImpl(const float* values, int tokens, int head_dim, const float* q, float* dots) {
  const ValueTag d;
  for (int token = 0; token < tokens; ++token) {
    const float* row = values + token * head_dim;
    auto sum = hn::Zero(d);
    for (int c = 0; c < head_dim; c += kLanes) {
      sum = hn::MulAdd(hn::LoadU(d, row + c), hn::LoadU(d, q + c), sum);
    }
    dots[token] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

void AddWeightedRowsImpl(const float* values, int tokens, int head_dim, const float* weights,
                         float rescale, float* sums) {
  const ValueTag d;
  for (int c = 0; c < head_dim; c += kLanes) {
    auto sum = hn::Mul(hn::LoadU(d, sums + c), hn::Set(d, rescale));
    for (int token = 0; token < tokens; ++token) {
      const auto value = hn::LoadU(d, values + token * head_dim + c);
      sum = hn::MulAdd(value, hn::Set(d, weights[token]), sum);
    }
    hn::StoreU(sum, d, sums + c);
  }
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace turbokv::cpu {

HWY_EXPORT(DotRowsImpl);
HWY_EXPORT(AddWeightedRowsImpl);

void DotRows(const float* values, int tokens, int head_dim, const float* q, float* dots) {
  HWY_DYNAMIC_DISPATCH(DotRowsImpl)(values, tokens, head_dim, q, dots);
}

void AddWeightedRows(const float* values, int tokens, int head_dim, const float* weights,
                     float rescale, float* sums) {
  HWY_DYNAMIC_DISPATCH(AddWeightedRowsImpl)(values, tokens, head_dim, weights, rescale, sums);
}

void AddParts(const float* parts, int padded_dim, float* sums) {
  for (int c = 0; c < padded_dim; ++c, parts += 4) {
    sums[c] = (parts[0] + parts[1]) + (parts[2] + parts[3]);
  }
}

}  // namespace turbokv::cpu
#endif  // HWY_ONCE
