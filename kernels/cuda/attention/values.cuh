// The weighted sum of one page's V.
#pragma once

#include "kernels/cuda/attention/softmax.cuh"

namespace turbokv::cuda {

// Sums of V for the lane's row g of each row tile: channel 32 tile + 8 n + 2 t + e.
template <int kHeadDim, int kRowTiles>
struct ValueSums {
  static constexpr int kTiles = kHeadDim / kTileChannels;
  float sums[kRowTiles][kTiles][4][2];
  // Affine codecs: sums of weight x the value of the middle code, of the lane's tokens, added to
  // every channel of the group in the end.
  float middles[kRowTiles][kMaxScaleGroups];

  TURBOKV_DEVICE void Clear() {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        ForTokens([&](int n, int e) { sums[r][tile][n][e] = 0.0f; });
      }
      for (float& middle : middles[r]) middle = 0.0f;
    }
  }
};

// Weights as 16-bit integers: unsigned where V's scales are never negative.
template <Codec kV>
struct WeightRounding {
  static constexpr bool kSigned = !IsTurbo(kV);
  static constexpr float kLargest = kSigned ? kLargestInt16 : 65535.0f;

  // The fragment of 32 tokens; weights are at most kLargest in magnitude. Adding a power of two
  // leaves the rounded integer in the low bits of the sum.
  static TURBOKV_DEVICE Words4 Round(const float (&weights)[4][2]) {
    constexpr float kShift = kSigned ? 12582912.0f + 128.0f : 8388608.0f;
    uint32_t bits[4][2];
    ForTokens([&](int n, int e) { bits[n][e] = __float_as_uint(weights[n][e] + kShift); });
    Words4 fragment;
    Split(bits[0], bits[1], fragment.x, fragment.y);
    Split(bits[2], bits[3], fragment.z, fragment.w);
    return fragment;
  }

 private:
  // The second and first bytes of four numbers. Signed ones were raised by 128, which rounds the
  // second byte to where the first one, lowered again, is balanced.
  static TURBOKV_DEVICE void Split(const uint32_t (&a)[2], const uint32_t (&b)[2], uint32_t& high,
                                   uint32_t& low) {
    const uint32_t first = Permute(a[0], a[1], 0x5410);
    const uint32_t second = Permute(b[0], b[1], 0x5410);
    high = Permute(first, second, 0x7531);
    low = Permute(first, second, 0x6420);
    if constexpr (kSigned) low ^= 0x80808080u;
  }
};

// Weights of 32 tokens as two fp16 or bf16 each.
template <bool kBf16>
TURBOKV_DEVICE RowFragment<kBf16 ? Product::kBf16 : Product::kFp16> SplitWeights(
    const float (&weights)[4][2]) {
  RowFragment<kBf16 ? Product::kBf16 : Product::kFp16> fragment;
  const auto split = [](const float(&pair)[2], uint32_t& high, uint32_t& low) {
    if constexpr (kBf16) {
      high = PackBf16(pair[0], pair[1]);
      low = PackBf16(pair[0] - LowBf16(high), pair[1] - HighBf16(high));
    } else {
      high = PackHalves(pair[0], pair[1]);
      low = PackHalves(pair[0] - LowHalf(high), pair[1] - HighHalf(high));
    }
  };
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    Words4& part = fragment.parts[half];
    split(weights[2 * half], part.x, part.y);
    split(weights[2 * half + 1], part.z, part.w);
  }
  return fragment;
}

// The largest magnitude of a row of 128 fp16 scales.
TURBOKV_DEVICE float LargestScale(const uint8_t* scale_row, int t) {
  uint32_t largest = 0;
#pragma unroll
  for (int block = 0; block < kTokenTiles; ++block) {
    const TokenHalves scales(scale_row, block, t);
    for (const uint32_t pair : scales.pairs) largest = MaxHalves(largest, pair & 0x7fff7fffu);
  }
  return RowMax(fmaxf(LowHalf(largest), HighHalf(largest)));
}

// The weights of a page times V's scales of one group, as A operands, and what 1 in them stands
// for.
template <Codec kV, int kRowTiles>
struct WeightFragments {
  RowFragment<ProductOf(kV)> blocks[kRowTiles][kTokenTiles];
  float unit;
};

template <Codec kV, int kHeadDim, int kRowTiles>
TURBOKV_DEVICE void RoundWeights(const uint8_t* scale_row, const TokenValues (&weights)[kRowTiles],
                                 int t, WeightFragments<kV, kRowTiles>& fragments) {
  if constexpr (ProductOf(kV) != Product::kInt8) {
    fragments.unit = 1.0f;
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int block = 0; block < kTokenTiles; ++block) {
        fragments.blocks[r][block] =
            SplitWeights<ProductOf(kV) == Product::kBf16>(weights[r][block]);
      }
    }
  } else {
    using Rounding = WeightRounding<kV>;
    const float largest = LargestScale(scale_row, t);
    fragments.unit = largest * (1.0f / Rounding::kLargest);
    // Of a page of zeros nothing is left; of one of denormals, the reciprocal must stay finite.
    const float factor = largest > 0.0f ? Rounding::kLargest * Reciprocal(largest) : 0.0f;
#pragma unroll
    for (int block = 0; block < kTokenTiles; ++block) {
      const TokenHalves scales(scale_row, block, t);
      float factors[4][2];
      ForTokens([&](int n, int e) { factors[n][e] = scales.Get(n, e) * factor; });
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        float products[4][2];
        ForTokens([&](int n, int e) { products[n][e] = weights[r][block][n][e] * factors[n][e]; });
        fragments.blocks[r][block].parts[0] = Rounding::Round(products);
      }
    }
  }
}

// Adds weight x (minimum + middle code x step) of the lane's tokens.
template <Codec kV, int kRowTiles>
TURBOKV_DEVICE void AddMiddles(const uint8_t* scale_row, int group,
                               const TokenValues (&weights)[kRowTiles],
                               const PageWeights (&page)[kRowTiles], int v_exponent, int t,
                               float (&middles)[kRowTiles][kMaxScaleGroups]) {
  constexpr float kMiddleCode = 1 << (FactsOf(kV).code_bits - 1);
  float sums[kRowTiles] = {};
#pragma unroll
  for (int block = 0; block < kTokenTiles; ++block) {
    const TokenHalves steps(scale_row, block, t);
    const TokenHalves minima(scale_row + 2 * kPageTokens, block, t);
    ForTokens([&](int n, int e) {
      const float middle = __fmaf_rn(steps.Get(n, e), kMiddleCode, minima.Get(n, e));
      for (int r = 0; r < kRowTiles; ++r) {
        sums[r] = __fmaf_rn(weights[r][block][n][e], middle, sums[r]);
      }
    });
  }
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    middles[r][group] =
        __fmaf_rn(sums[r], ScaleByPower(page[r].gain, v_exponent), middles[r][group]);
  }
}

// begin = -(middle code) x the sum of the rounded weights, high and low bytes apart.
template <Codec kV, int kRowTiles>
TURBOKV_DEVICE void CentreCodes(const WeightFragments<kV, kRowTiles>& rounded,
                                int (&begin)[kRowTiles][2]) {
  constexpr int kMiddleCode = 1 << (FactsOf(kV).code_bits - 1);
  constexpr uint32_t kOnes = 0x01010101u;
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    int c[4] = {};
#pragma unroll
    for (int block = 0; block < kTokenTiles; ++block) {
      MultiplyInt8<true, false>(c, rounded.blocks[r][block].parts[0], kOnes, kOnes);
    }
    begin[r][0] = -kMiddleCode * c[0];
    begin[r][1] = -kMiddleCode * c[2];
  }
}

// Adds one page: sums += gain x (weights x V).
template <Codec kV, int kHeadDim, int kRowTiles>
TURBOKV_DEVICE void AddPageValues(const uint8_t* v_half, const TokenValues (&weights)[kRowTiles],
                                  const PageWeights (&page)[kRowTiles], float v_unit,
                                  int v_exponent, int lane,
                                  ValueSums<kHeadDim, kRowTiles>& values) {
  using Accumulator = typename AccumulatorOf<ProductOf(kV)>::Type;
  constexpr bool kSignedWeights = WeightRounding<kV>::kSigned;
  constexpr int kTiles = kHeadDim / kTileChannels;
  constexpr int kScaleGroups = ScaleGroups(kV, kHeadDim);
  constexpr int kGroupTiles = kTiles / kScaleGroups;
  constexpr int kScaleRowsAGroup = IsAffine(kV) ? 2 : 1;
  const int t = lane & 3;
  const uint8_t* const scale_rows = v_half + ScalesOffset(kV, kHeadDim);
#pragma unroll
  for (int group = 0; group < kScaleGroups; ++group) {
    const uint8_t* const scale_row = scale_rows + kScaleRowsAGroup * group * 2 * kPageTokens;
    WeightFragments<kV, kRowTiles> rounded;
    RoundWeights<kV, kHeadDim, kRowTiles>(scale_row, weights, t, rounded);
    // Affine codes are 0..2^N-1: the sums begin at minus the middle code times all weights, in the
    // same exact integers, so that they stay as small as the output is.
    Accumulator begin[kRowTiles][2] = {};
    if constexpr (IsAffine(kV)) {
      AddMiddles<kV, kRowTiles>(scale_row, group, weights, page, v_exponent, t, values.middles);
      CentreCodes<kV, kRowTiles>(rounded, begin);
    }
    float gain[kRowTiles];
    for (int r = 0; r < kRowTiles; ++r) {
      gain[r] = ScaleByPower(page[r].gain * rounded.unit * v_unit, v_exponent);
    }
#pragma unroll
    for (int i = 0; i < kGroupTiles; ++i) {
      const int tile = group * kGroupTiles + i;
      Accumulator c[kRowTiles][4][4];
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          c[r][n][0] = c[r][n][1] = begin[r][0];
          c[r][n][2] = c[r][n][3] = begin[r][1];
        }
      }
#pragma unroll
      for (int block = 0; block < kTokenTiles; ++block) {
        const RowFragment<ProductOf(kV)>* a[kRowTiles];
        for (int r = 0; r < kRowTiles; ++r) a[r] = &rounded.blocks[r][block];
        const TileWordsOf words{
            reinterpret_cast<const uint32_t*>(v_half + (block * kTiles + tile) * TileBytes(kV)) +
            lane};
        MultiplyTile<kV, kSignedWeights, kRowTiles>(words, a, c);
      }
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        ForTokens([&](int n, int e) {
          float& sum = values.sums[r][tile][n][e];
          sum = __fmaf_rn(Combine(c[r][n][e], c[r][n][2 + e]), gain[r], sum);
        });
      }
    }
  }
}

}  // namespace turbokv::cuda
