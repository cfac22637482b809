#include "bench/kernels/bf16_attention.h"

#include "kernels/cpu/simd_targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/kernels/bf16_attention.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "hwy/cache_control.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/load_values-inl.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using cpu::HWY_NAMESPACE::Bf16Source;
using cpu::HWY_NAMESPACE::ValueTag;
using Vector = hn::Vec<ValueTag>;

constexpr int kDim = 128;
constexpr int kBlockTokens = 128;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(ValueTag()));
constexpr int kAccumulators = 16;

// Fetches rows [begin, end) of a block that will be read soon: too little of NHD is contiguous for
// the hardware to see it coming. Null: nothing.
HWY_INLINE void PrefetchRows(const uint16_t* rows, ptrdiff_t token_stride, int begin, int end) {
  constexpr int kCacheLineValues = 32;
  if (rows == nullptr) return;
  for (int token = begin; token < end; ++token) {
    for (int c = 0; c < kDim; c += kCacheLineValues) {
      hwy::Prefetch(rows + token * token_stride + c);
    }
  }
}

// Sums of the lanes of four vectors.
HWY_INLINE hn::Vec<hn::Full128<float>> SumFour(const Vector* v) {
  const ValueTag d;
  const hn::RepartitionToWide<ValueTag> dw;
  const auto v01 = hn::Add(hn::InterleaveLower(d, v[0], v[1]), hn::InterleaveUpper(d, v[0], v[1]));
  const auto v23 = hn::Add(hn::InterleaveLower(d, v[2], v[3]), hn::InterleaveUpper(d, v[2], v[3]));
  const auto w01 = hn::BitCast(dw, v01);
  const auto w23 = hn::BitCast(dw, v23);
  const auto sums = hn::Add(hn::BitCast(d, hn::InterleaveLower(dw, w01, w23)),
                            hn::BitCast(d, hn::InterleaveUpper(dw, w01, w23)));
  const hn::Full128<float> d4;
#if HWY_MAX_BYTES == 64
  const hn::Half<ValueTag> dh;
  const auto half = hn::Add(hn::LowerHalf(dh, sums), hn::UpperHalf(dh, sums));
  return hn::Add(hn::LowerHalf(d4, half), hn::UpperHalf(d4, half));
#elif HWY_MAX_BYTES == 32
  return hn::Add(hn::LowerHalf(d4, sums), hn::UpperHalf(d4, sums));
#else
  (void)d4;
  return sums;
#endif
}

// scores[row][token] of one block.
template <int kRows>
HWY_INLINE void ScoreBlock(const uint16_t* k, ptrdiff_t token_stride, const float* q,
                           const uint16_t* next, float* scores) {
  const ValueTag d;
  constexpr int kTokens = kAccumulators / kRows;
  for (int token = 0; token < kBlockTokens; token += kTokens) {
    PrefetchRows(next, token_stride, token, token + kTokens);
    Vector sums[kRows][kTokens];
    for (auto& row : sums) {
      for (auto& sum : row) sum = hn::Zero(d);
    }
    for (int c = 0; c < kDim; c += kLanes) {
      Vector keys[kTokens];
      for (int t = 0; t < kTokens; ++t) {
        keys[t] = Bf16Source::Load(d, k + (token + t) * token_stride + c);
      }
      for (int row = 0; row < kRows; ++row) {
        const auto query = hn::LoadU(d, q + row * kDim + c);
        for (int t = 0; t < kTokens; ++t) sums[row][t] = hn::MulAdd(keys[t], query, sums[row][t]);
      }
    }
    for (int row = 0; row < kRows; ++row) {
      for (int t = 0; t < kTokens; t += 4) {
        hn::StoreU(SumFour(&sums[row][t]), hn::Full128<float>(),
                   scores + row * kBlockTokens + token + t);
      }
    }
  }
}

// out[row] = out[row] x rescale[row] + weights[row] x V of one block.
template <int kRows>
HWY_INLINE void AddBlock(const uint16_t* v, ptrdiff_t token_stride, const float* weights,
                         const float* rescale, const uint16_t* next, float* out) {
  const ValueTag d;
  constexpr int kVectors = std::min(kAccumulators / kRows, kDim / kLanes);
  for (int c = 0; c < kDim; c += kVectors * kLanes) {
    Vector sums[kRows][kVectors];
    for (int row = 0; row < kRows; ++row) {
      for (int i = 0; i < kVectors; ++i) {
        const auto before = hn::LoadU(d, out + row * kDim + c + i * kLanes);
        sums[row][i] = hn::Mul(before, hn::Set(d, rescale[row]));
      }
    }
    for (int token = 0; token < kBlockTokens; ++token) {
      if (c == 0) PrefetchRows(next, token_stride, token, token + 1);
      Vector values[kVectors];
      for (int i = 0; i < kVectors; ++i) {
        values[i] = Bf16Source::Load(d, v + token * token_stride + c + i * kLanes);
      }
      for (int row = 0; row < kRows; ++row) {
        const auto weight = hn::Set(d, weights[row * kBlockTokens + token]);
        for (int i = 0; i < kVectors; ++i) {
          sums[row][i] = hn::MulAdd(values[i], weight, sums[row][i]);
        }
      }
    }
    for (int row = 0; row < kRows; ++row) {
      for (int i = 0; i < kVectors; ++i) {
        hn::StoreU(sums[row][i], d, out + row * kDim + c + i * kLanes);
      }
    }
  }
}

struct RowState {
  float largest = -std::numeric_limits<float>::infinity();
  double weight = 0;
};

// Block i in the order of the loop: one head's 128 tokens.
struct Block {
  int head;
  const uint16_t* k;
  const uint16_t* v;
};

Block BlockAt(const Bf16Attention& problem, int i) {
  const KvView& kv = problem.kv;
  const int blocks = kv.tokens / kBlockTokens;
  if (i == blocks * problem.kv_heads) return {0, nullptr, nullptr};
  const bool head_major = kv.token_stride == kDim;
  const int head = head_major ? i / blocks : i % problem.kv_heads;
  const int block = head_major ? i % blocks : i / problem.kv_heads;
  const ptrdiff_t offset = head * kv.head_stride + block * kBlockTokens * kv.token_stride;
  return {head, static_cast<const uint16_t*>(kv.k) + offset,
          static_cast<const uint16_t*>(kv.v) + offset};
}

template <int kRows>
HWY_INLINE void AttendBlock(const Bf16Attention& problem, const Block& block, const Block& next,
                            RowState* states) {
  const ptrdiff_t stride = problem.kv.token_stride;
  const int first_row = block.head * kRows;
  float scores[kRows * kBlockTokens];
  float rescale[kRows];
  ScoreBlock<kRows>(block.k, stride, problem.q + first_row * kDim, block.v, scores);
  for (int row = 0; row < kRows; ++row) {
    RowState& state = states[first_row + row];
    float* row_scores = scores + row * kBlockTokens;
    const float largest = std::max(state.largest, cpu::LargestScore(row_scores, kBlockTokens));
    rescale[row] = std::exp(state.largest - largest);
    state.weight = state.weight * rescale[row] +
                   cpu::ExpWeights(row_scores, kBlockTokens, largest, 0, row_scores).all;
    state.largest = largest;
  }
  AddBlock<kRows>(block.v, stride, scores, rescale, next.k, problem.out + first_row * kDim);
}

template <int kRows>
void Attend(const Bf16Attention& problem) {
  std::vector<RowState> states(problem.kv_heads * kRows);
  std::fill(problem.out, problem.out + states.size() * kDim, 0.0f);
  const int blocks = problem.kv.tokens / kBlockTokens * problem.kv_heads;
  for (int i = 0; i < blocks; ++i) {
    AttendBlock<kRows>(problem, BlockAt(problem, i), BlockAt(problem, i + 1), states.data());
  }
  for (size_t row = 0; row < states.size(); ++row) {
    for (int c = 0; c < kDim; ++c) {
      problem.out[row * kDim + c] /= static_cast<float>(states[row].weight);
    }
  }
}

void RunBf16AttentionImpl(const Bf16Attention& problem) {
  if (problem.group_heads == 1) return Attend<1>(problem);
  Attend<4>(problem);
}

}  // namespace turbokv::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace turbokv {

HWY_EXPORT(RunBf16AttentionImpl);

void RunBf16Attention(const Bf16Attention& problem) {
  HWY_DYNAMIC_DISPATCH(RunBf16AttentionImpl)(problem);
}

}  // namespace turbokv
#endif  // HWY_ONCE
