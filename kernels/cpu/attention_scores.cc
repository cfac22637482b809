// Scores: packed K times rotated Q.
#include "kernels/cpu/simd_targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_scores.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/integer_dot-inl.h"
#include "kernels/cpu/reader_table.h"
#include "kernels/cpu/row_dot-inl.h"
#include "kernels/format/codec.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {

// The eight lanes of a token pair (g even, g odd), at most.
using PairTag = hn::CappedTag<float, 8>;

// Adds the four parts t of every token of an n-tile: sums[4g + t] -> dots[4(g & 1) + (g >> 1)],
// which is tile order for the tokens of n-tile n at offset 8n.
HWY_INLINE void ReduceParts(const float* sums, float* dots) {
  const PairTag d;
  const hn::RepartitionToWide<PairTag> dw;
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(PairTag()));
  for (int odd = 0; odd < 8; odd += kLanes) {
    const auto v0 = hn::Load(d, sums + odd);
    const auto v1 = hn::Load(d, sums + odd + 8);
    const auto v2 = hn::Load(d, sums + odd + 16);
    const auto v3 = hn::Load(d, sums + odd + 24);
    const auto v01 = hn::Add(hn::InterleaveLower(d, v0, v1), hn::InterleaveUpper(d, v0, v1));
    const auto v23 = hn::Add(hn::InterleaveLower(d, v2, v3), hn::InterleaveUpper(d, v2, v3));
    const auto w01 = hn::BitCast(dw, v01);
    const auto w23 = hn::BitCast(dw, v23);
    const auto lower = hn::BitCast(d, hn::InterleaveLower(dw, w01, w23));
    const auto upper = hn::BitCast(d, hn::InterleaveUpper(dw, w01, w23));
    hn::StoreU(hn::Add(lower, upper), d, dots + odd);
  }
}

// Calls multiply(store), where store(row, lane, sums) takes the parts of one 32-token block, and
// adds the parts up.
template <int kRows, class Multiply>
HWY_INLINE void ScoreBlock(const Multiply& multiply, float* dots, size_t dots_stride) {
  HWY_ALIGN float sums[kRows][4 * kTileLanes];
  multiply([&](int row, int lane, FloatVec sum)
               HWY_ATTR { hn::Store(sum, FloatTag(), &sums[row][lane]); });
  for (int row = 0; row < kRows; ++row) {
    for (int n = 0; n < 4; ++n) {
      ReduceParts(&sums[row][n * kTileLanes], dots + row * dots_stride + 8 * n);
    }
  }
}

template <int kRows, class Reader>
HWY_INLINE void ScoreRows(const Reader& reader, const PackedCodes& k, const float* q, float* dots) {
  const size_t tile_bytes = TileBytes(TraitsOf(k.codec).code_bits);
  const size_t q_stride = static_cast<size_t>(k.channel_tiles) * kTileChannels;
  const size_t dots_stride = static_cast<size_t>(k.scales()) * kPageTokens;
  for (int scale = 0; scale < k.scales(); ++scale) {
    const int first = scale * k.tiles_per_scale;
    const int count = std::min(k.tiles_per_scale, k.channel_tiles - first);
    const WeightRows weights{q + first * kTileChannels, q_stride};
    const auto for_each_block = [&](const auto& multiply) HWY_ATTR {
      for (int block = 0; block < k.token_tiles; ++block) {
        if (scale == 0) PrefetchPart(k.next, block, k.token_tiles);
        const uint8_t* tiles = k.codes + (block * k.channel_tiles + first) * tile_bytes;
        const TileColumn column{tiles, tile_bytes, count, 0};
        ScoreBlock<kRows>([&](const auto& store) HWY_ATTR { multiply(column, store); },
                          dots + scale * kPageTokens + block * kTileTokens, dots_stride);
      }
    };
#if HWY_TARGET == HWY_AVX3_DL
    if constexpr (CanMultiplyIntegers<Reader, kRows>()) {
      if (k.ranges != nullptr) {
        const IntegerCodebook& codebook = IntegerCodebookOf(k.codec);
        IntegerWeights rounded;
        rounded.Round(weights, count * kTileChannels, k.ranges + scale, k.scales(), codebook.unit);
        for_each_block([&](const TileColumn& column, const auto& store) HWY_ATTR {
          ForEachPart<kRows>(reader, column, rounded.rows(), codebook, store);
        });
        continue;
      }
    }
#endif
    for_each_block([&](const TileColumn& column, const auto& store)
                       HWY_ATTR { ForEachPart<kRows>(reader, column, weights, store); });
  }
}

void ScoreDotsImpl(const PackedCodes& k, const float* q, int rows, float* dots) {
  const std::array<float, 16>& table = ReaderTable(k.codec);
  const size_t q_stride = static_cast<size_t>(k.channel_tiles) * kTileChannels;
  const size_t dots_stride = static_cast<size_t>(k.scales()) * kPageTokens;
  WithReader(k.codec, table.data(), [&](const auto& reader) HWY_ATTR {
    if (rows == 1) return ScoreRows<1>(reader, k, q, dots);
    for (int row = 0; row < rows; row += kRowStep) {
      PackedCodes rows_of_step = k;
      if (k.ranges != nullptr) rows_of_step.ranges += row * k.scales();
      ScoreRows<kRowStep>(reader, rows_of_step, q + row * q_stride, dots + row * dots_stride);
    }
  });
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace turbokv::cpu {

HWY_EXPORT(ScoreDotsImpl);

void ScoreDots(const PackedCodes& k, const float* q, int rows, float* dots) {
  HWY_DYNAMIC_DISPATCH(ScoreDotsImpl)(k, q, rows, dots);
}

}  // namespace turbokv::cpu
#endif  // HWY_ONCE
