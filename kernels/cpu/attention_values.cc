// Values: softmax weights times packed V, summed in V's own (rotated) domain.
#include "kernels/cpu/simd_targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_values.cc"
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

template <int kRows, class Reader>
HWY_INLINE void AccumulateRows(const Reader& reader, const PackedCodes& v, const float* weights,
                               const float* rescale, float* sums) {
  const size_t tile_bytes = TileBytes(TraitsOf(v.codec).code_bits);
  const size_t weights_stride = static_cast<size_t>(v.scales()) * kPageTokens;
  const size_t sums_stride = ValueSumsSize(v.channel_tiles * kTileChannels);
  for (int scale = 0; scale < v.scales(); ++scale) {
    const int first = scale * v.tiles_per_scale;
    const int end = std::min(first + v.tiles_per_scale, v.channel_tiles);
    const WeightRows rows{weights + scale * kPageTokens, weights_stride};
    const auto for_each_tile = [&](const auto& multiply) HWY_ATTR {
      for (int tile = first; tile < end; ++tile) {
        PrefetchPart(v.next, tile, v.channel_tiles);
        const TileColumn column{v.codes + tile * tile_bytes, v.channel_tiles * tile_bytes,
                                v.token_tiles, 0};
        float* tile_sums = sums + tile * 4 * kTileLanes;
        multiply(column, [&](int row, int lane, FloatVec sum) HWY_ATTR {
          const FloatTag d;
          float* total = tile_sums + row * sums_stride + lane;
          const auto factor = hn::Set(d, rescale[row]);
          hn::StoreU(hn::MulAdd(hn::LoadU(d, total), factor, sum), d, total);
        });
      }
    };
#if HWY_TARGET == HWY_AVX3_DL
    if constexpr (CanMultiplyIntegers<Reader, kRows>()) {
      if (v.ranges != nullptr) {
        const IntegerCodebook& codebook = IntegerCodebookOf(v.codec);
        IntegerWeights rounded;
        rounded.Round(rows, v.token_tiles * kTileTokens, v.ranges + scale, v.scales(),
                      codebook.unit);
        for_each_tile([&](const TileColumn& column, const auto& add) HWY_ATTR {
          ForEachPart<kRows>(reader, column, rounded.rows(), codebook, add);
        });
        continue;
      }
    }
#endif
    for_each_tile([&](const TileColumn& column, const auto& add)
                      HWY_ATTR { ForEachPart<kRows>(reader, column, rows, add); });
  }
}

void AccumulateValuesImpl(const PackedCodes& v, const float* weights, const float* rescale,
                          int rows, float* sums) {
  const std::array<float, 16>& table = ReaderTable(v.codec);
  const size_t weights_stride = static_cast<size_t>(v.scales()) * kPageTokens;
  const size_t sums_stride = ValueSumsSize(v.channel_tiles * kTileChannels);
  WithReader(v.codec, table.data(), [&](const auto& reader) HWY_ATTR {
    if (rows == 1) return AccumulateRows<1>(reader, v, weights, rescale, sums);
    for (int row = 0; row < rows; row += kRowStep) {
      PackedCodes rows_of_step = v;
      if (v.ranges != nullptr) rows_of_step.ranges += row * v.scales();
      AccumulateRows<kRowStep>(reader, rows_of_step, weights + row * weights_stride, rescale + row,
                               sums + row * sums_stride);
    }
  });
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace turbokv::cpu {

HWY_EXPORT(AccumulateValuesImpl);

void AccumulateValues(const PackedCodes& v, const float* weights, const float* rescale, int rows,
                      float* sums) {
  HWY_DYNAMIC_DISPATCH(AccumulateValuesImpl)(v, weights, rescale, rows, sums);
}

}  // namespace turbokv::cpu
#endif  // HWY_ONCE
