// Softmax over one page, online: weights relative to the page's own largest score (so that rounding
// them loses the least), and how the page joins what came before.
#pragma once

#include "kernels/cuda/attention/scores.cuh"

namespace turbokv::cuda {

// Scores no real score reaches: of rows that have seen no token. Finite, so that differences are.
inline constexpr float kNoScore = -1e30f;

// Of one row tile, for the lane's row.
struct SoftmaxState {
  float largest = kNoScore;
  float sum = 0.0f;  // over the tokens that this lane owns, of exp2(score - largest)
};

struct PageWeights {
  float keep;  // factor on everything summed before
  float gain;  // factor on this page's weights
};

// c tanh(x / c), within 2e-6 of its value. Far below the cap the exact formula would leave nothing
// but the rounding of the cap: there, the series of tanh.
TURBOKV_DEVICE float SoftCap(float x, float cap) {
  constexpr float kTwoLog2E = 2.8853900817779268f;
  const float ratio = x * Reciprocal(cap);
  const float square = ratio * ratio;
  if (square < 0.015f) {
    const float series = __fmaf_rn(square, -17.0f / 315.0f, 2.0f / 15.0f);
    return x * __fmaf_rn(square, __fmaf_rn(square, series, -1.0f / 3.0f), 1.0f);
  }
  return cap - 2.0f * cap * Reciprocal(Exp2(ratio * kTwoLog2E) + 1.0f);
}

// The larger of a value's four copies in lanes 4g..4g+3, in all four.
TURBOKV_DEVICE float RowMax(float value) {
  value = fmaxf(value, __shfl_xor_sync(~0u, value, 1));
  return fmaxf(value, __shfl_xor_sync(~0u, value, 2));
}
TURBOKV_DEVICE float RowSum(float value) {
  value += __shfl_xor_sync(~0u, value, 1);
  return value + __shfl_xor_sync(~0u, value, 2);
}

template <typename Fn>
TURBOKV_DEVICE void ForPage(const Fn& fn) {
#pragma unroll
  for (int block = 0; block < kTokenTiles; ++block) {
    ForTokens([&](int n, int e) { fn(block, n, e); });
  }
}

// Scores of tokens outside [begin, end) of the page become -infinity.
TURBOKV_DEVICE void MaskTokens(TokenValues& scores, int begin, int end, int t) {
  ForPage([&](int block, int n, int e) {
    const int token = TokenInPage(block, n, e) + 4 * t;
    if (token < begin || token >= end) scores[block][n][e] = -Infinity();
  });
}

// Turns `values` from scores into weights exp2(score - page's largest), where score = value x scale
// + bias, and takes them into `state`.
TURBOKV_DEVICE PageWeights UpdateSoftmax(float scale, float bias, TokenValues& values,
                                         SoftmaxState& state) {
  float largest = values[0][0][0];
  ForPage([&](int block, int n, int e) { largest = fmaxf(largest, values[block][n][e]); });
  // Rounded so that no weight exceeds 1: what rounds weights to integers (values.cuh) relies on it,
  // and at large scores a float's spacing is not small.
  largest = fmaxf(__fmaf_ru(RowMax(largest), scale, bias), kNoScore);
  const float offset = __fsub_rd(bias, largest);
  float sum = 0.0f;
  ForPage([&](int block, int n, int e) {
    values[block][n][e] = Exp2(__fmaf_rn(values[block][n][e], scale, offset));
    sum += values[block][n][e];
  });
  const float all_largest = fmaxf(state.largest, largest);
  const PageWeights weights{Exp2(state.largest - all_largest), Exp2(largest - all_largest)};
  state.largest = all_largest;
  state.sum = __fmaf_rn(state.sum, weights.keep, sum * weights.gain);
  return weights;
}

// Weights that are below `threshold` relative to the largest so far become 0; returns whether any
// is left in the lane.
TURBOKV_DEVICE bool DropSmallWeights(float threshold, const PageWeights& page,
                                     TokenValues& weights) {
  bool any = false;
  ForPage([&](int block, int n, int e) {
    const bool kept = weights[block][n][e] * page.gain >= threshold;
    weights[block][n][e] = kept ? weights[block][n][e] : 0.0f;
    any |= kept;
  });
  return any;
}

}  // namespace turbokv::cuda
