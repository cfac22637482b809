// Scores of one page: rows of Q against 128 tokens of K.
//
// Lane 4g + t gets, of row g and for token block b, n-tile n and e = 0, 1, the score of token
//   32 b + 16 (n >> 1) + 4 t + 2 (n & 1) + e
// which is where the product with V wants its weight.
#pragma once

#include "kernels/cuda/attention/query_block.cuh"
#include "kernels/cuda/primitives/tile_product.cuh"

namespace turbokv::cuda {

// One value for each token that a lane owns of its row.
using TokenValues = float[kTokenTiles][4][2];

constexpr int TokenInPage(int block, int n, int e) {  // for t = 0; add 4 t
  return kTileTokens * block + 16 * (n >> 1) + 2 * (n & 1) + e;
}

// Calls fn(n, e) for the eight tokens that a lane owns of a block.
template <typename Fn>
TURBOKV_DEVICE void ForTokens(const Fn& fn) {
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) fn(n, e);
  }
}

// The fp16 numbers of a lane's eight tokens of a block, from a row of 128 in shared memory.
struct TokenHalves {
  uint32_t pairs[4];

  TURBOKV_DEVICE TokenHalves(const uint8_t* row, int block, int t) {
    const auto* words = reinterpret_cast<const Words2*>(row + 2 * (kTileTokens * block + 4 * t));
    const Words2 first = words[0];
    const Words2 second = words[4];  // 16 tokens on
    pairs[0] = first.x;
    pairs[1] = first.y;
    pairs[2] = second.x;
    pairs[3] = second.y;
  }
  TURBOKV_DEVICE float Get(int n, int e) const {
    return e == 0 ? LowHalf(pairs[n]) : HighHalf(pairs[n]);
  }
};

// What 1 in a turbo codec's table stands for before scales, with the centroids' sigma
// 1 / sqrt(group channels).
template <Codec kCodec, int kHeadDim>
TURBOKV_DEVICE constexpr float TableUnit() {
  constexpr float kSigma = GroupChannels(kHeadDim) == 64 ? 0.125f : 0.08838834764831845f;
  return kSigma / IntegerTableOf(kCodec).divisor;
}

// Q of a unit in registers, as K's codec wants it.
template <Codec kK, int kHeadDim, int kRowTiles>
struct UnitQueries {
  static constexpr Product kProduct = ProductOf(kK);
  static constexpr int kTiles = kHeadDim / kTileChannels;
  static constexpr QueryForm kForm = QueryFormOf(kK);
  static_assert((kForm == kBf16Q) == (kProduct == Product::kBf16) &&
                (kForm == kFp16Q) == (kProduct == Product::kFp16));
  RowFragment<kProduct> fragments[kRowTiles][kTiles];
  float scale[kRowTiles];                  // of the lane's row g
  float sums[kRowTiles][kMaxScaleGroups];  // affine codecs: of each group's integers

  TURBOKV_DEVICE void Load(const QueryBlock<kHeadDim>* blocks, int lane) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      const QueryBlock<kHeadDim>& block = blocks[r];
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        if constexpr (kProduct == Product::kInt8) {
          const auto& source = kForm == kRotatedQ ? block.rotated : block.plain;
          fragments[r][tile].parts[0] = Load16Bytes(&source[tile][lane]);
        } else {
          const auto& source = kProduct == Product::kBf16 ? block.bf16 : block.fp16;
          fragments[r][tile].parts[0] = Load16Bytes(&source[tile][0][lane]);
          fragments[r][tile].parts[1] = Load16Bytes(&source[tile][1][lane]);
        }
      }
      const QueryRow& row = block.rows[lane / 4];
      scale[r] = kProduct != Product::kInt8 ? row.pair_scale
                 : kForm == kRotatedQ       ? row.rotated_scale
                                            : row.plain_scale;
      if constexpr (IsTurbo(kK)) scale[r] *= TableUnit<kK, kHeadDim>();
      for (int group = 0; group < kMaxScaleGroups; ++group) {
        sums[r][group] = row.rotated_sums[group];
      }
    }
  }
};

// scores, up to a factor of the row and a term of the page.
template <Codec kK, int kHeadDim, int kRowTiles>
TURBOKV_DEVICE void ScorePage(const uint8_t* k_half,
                              const UnitQueries<kK, kHeadDim, kRowTiles>& queries, int lane,
                              TokenValues (&scores)[kRowTiles]) {
  using Accumulator = typename AccumulatorOf<ProductOf(kK)>::Type;
  constexpr int kTiles = kHeadDim / kTileChannels;
  constexpr int kScaleGroups = ScaleGroups(kK, kHeadDim);
  constexpr int kGroupTiles = kTiles / kScaleGroups;
  const int t = lane & 3;
  const uint8_t* const scale_rows = k_half + ScalesOffset(kK, kHeadDim);
#pragma unroll
  for (int block = 0; block < kTokenTiles; ++block) {
#pragma unroll
    for (int group = 0; group < kScaleGroups; ++group) {
      Accumulator c[kRowTiles][4][4] = {};
#pragma unroll
      for (int i = 0; i < kGroupTiles; ++i) {
        const int tile = group * kGroupTiles + i;
        const RowFragment<ProductOf(kK)>* a[kRowTiles];
        for (int r = 0; r < kRowTiles; ++r) a[r] = &queries.fragments[r][tile];
        const TileWordsOf words{
            reinterpret_cast<const uint32_t*>(k_half + (block * kTiles + tile) * TileBytes(kK)) +
            lane};
        MultiplyTile<kK, true, kRowTiles>(words, a, c);
      }
      if constexpr (ScaleRows(kK, kHeadDim) == 0) {
        ForTokens([&](int n, int e) {
          for (int r = 0; r < kRowTiles; ++r) {
            scores[r][block][n][e] = Combine(c[r][n][e], c[r][n][2 + e]);
          }
        });
      } else if constexpr (IsAffine(kK)) {
        const TokenHalves steps(scale_rows + (2 * group) * 2 * kPageTokens, block, t);
        const TokenHalves minima(scale_rows + (2 * group + 1) * 2 * kPageTokens, block, t);
        ForTokens([&](int n, int e) {
          const float step = steps.Get(n, e);
          const float minimum = minima.Get(n, e);
          for (int r = 0; r < kRowTiles; ++r) {
            const float before = group == 0 ? 0.0f : scores[r][block][n][e];
            scores[r][block][n][e] = __fmaf_rn(Combine(c[r][n][e], c[r][n][2 + e]), step,
                                               __fmaf_rn(minimum, queries.sums[r][group], before));
          }
        });
      } else {
        const TokenHalves scales(scale_rows + group * 2 * kPageTokens, block, t);
        ForTokens([&](int n, int e) {
          const float scale = scales.Get(n, e);
          for (int r = 0; r < kRowTiles; ++r) {
            const float dot = Combine(c[r][n][e], c[r][n][2 + e]);
            scores[r][block][n][e] =
                group == 0 ? dot * scale : __fmaf_rn(dot, scale, scores[r][block][n][e]);
          }
        });
      }
    }
  }
}

// What the page's K mean adds to all scores of the lane's rows: q . mean, with q in two fp16.
template <int kHeadDim, int kRowTiles>
TURBOKV_DEVICE void ScoreMean(const uint8_t* mean, const QueryBlock<kHeadDim>* blocks, int lane,
                              float (&bias)[kRowTiles]) {
  constexpr int kTiles = kHeadDim / kTileChannels;
  const int t = lane & 3;
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    float c[4] = {};
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        // All eight columns of B are the mean, so every lane gets its row's product.
        const int channel = kTileChannels * tile + 16 * half + 4 * t;
        const Words2 b = *reinterpret_cast<const Words2*>(mean + 2 * channel);
        MultiplyHalf<false>(c, Load16Bytes(&blocks[r].fp16[tile][half][lane]), b.x, b.y);
      }
    }
    bias[r] = (c[0] + c[2]) * blocks[r].rows[lane / 4].pair_scale;
  }
}

}  // namespace turbokv::cuda
