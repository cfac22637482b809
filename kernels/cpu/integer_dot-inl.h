// MultiplyColumn of row_dot-inl.h in 16-bit integers, for codes that are looked up (turboN), where
// the machine multiplies 32 pairs an instruction: twice the speed, weights rounded to 1/32767 of
// the largest. Callers decide where that is accurate enough (PackedCodes::exact).

#if defined(KERNELS_CPU_INTEGER_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_INTEGER_DOT_INL_H_
#undef KERNELS_CPU_INTEGER_DOT_INL_H_
#else
#define KERNELS_CPU_INTEGER_DOT_INL_H_
#endif

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/reader_table.h"
#include "kernels/cpu/row_dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3_DL
constexpr bool kHasIntegerDot = true;

using IntTag = hn::RebindToSigned<FloatTag>;
using IntVec = hn::Vec<IntTag>;

// kRowStep rows of weights as 16-bit integers, a block of 32 at a time: lane 4i + t of a block
// holds those of (h 0, i, t) and (h 1, i, t), which meet the codes of nibbles i and 4 + i.
struct IntegerRows {
  const uint32_t* first;  // [row][block][16]
  size_t stride;
  const float* units;  // of each row: what 1 in the integer product stands for
};

// Rounded copies of float weights.
class IntegerWeights {
 public:
  // Rounds `count` weights of each row, whose ranges are `ranges_stride` apart.
  HWY_INLINE void Round(const WeightRows& weights, int count, const float* ranges,
                        int ranges_stride, float code_unit) {
    for (int row = 0; row < kRowStep; ++row) {
      const float range = ranges[row * ranges_stride];
      const float scale = range == 0 ? 0 : kLargestRounded / range;
      units_[row] = code_unit * range / kLargestRounded;
      const float* from = weights.first + row * weights.stride;
      for (int i = 0; i < count; i += kTileOrderValues) {
        RoundBlock(from + i, scale, values_[row] + i / 2);
      }
    }
  }

  IntegerRows rows() const { return {values_[0], kPageTokens / 2, units_}; }

 private:
  static HWY_INLINE void RoundBlock(const float* weights, float scale, uint32_t* pairs) {
    const FloatTag d;
    const WordTag du;
    const auto factor = hn::Set(d, scale);
    const auto low = hn::NearestInt(hn::Mul(hn::LoadU(d, weights), factor));
    const auto high = hn::NearestInt(hn::Mul(hn::LoadU(d, weights + 16), factor));
    const auto low_half = hn::And(hn::BitCast(du, low), hn::Set(du, 0xffffu));
    hn::StoreU(hn::Or(low_half, hn::ShiftLeft<16>(hn::BitCast(du, high))), du, pairs);
  }

  HWY_ALIGN uint32_t values_[kRowStep][kPageTokens / 2];
  float units_[kRowStep];
};

// The codebook's integer for the low five bits of every 16-bit lane (entries repeat).
HWY_INLINE __m512i LookupPairs(__m512i table, WordVec index) {
  return _mm512_permutexvar_epi16(index.raw, table);
}

// sum + a.low x b.low + a.high x b.high of every lane. Highway has no such operation yet, and GCC
// no target attribute that goes with Highway's.
HWY_INLINE IntVec MultiplyPairs(__m512i a, WordVec b, IntVec sum) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sum.raw) : "v"(a), "v"(b.raw));
  return sum;
}

using IntegerSums = IntVec[kRowStep][kNTilesAtOnce * kVectorsAtOnce];

template <int kPair>
HWY_INLINE void MultiplyPair(__m512i table, const WordVec* words, const uint32_t* weights,
                             size_t stride, IntegerSums& sums) {
  constexpr int kVectors = kNTilesAtOnce * kVectorsAtOnce;
  __m512i values[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    values[v] = LookupPairs(table, hn::ShiftRight<4 * kPair>(words[v]));
  }
  for (int row = 0; row < kRowStep; ++row) {
    const auto weight = hn::LoadDup128(WordTag(), weights + row * stride + 4 * kPair);
    for (int v = 0; v < kVectors; ++v) {
      sums[row][v] = MultiplyPairs(values[v], weight, sums[row][v]);
    }
  }
}

// As ForEachPart with float weights.
template <int kRows, class Reader, class Fn>
HWY_INLINE void ForEachPart(const Reader& reader, TileColumn column, const IntegerRows& weights,
                            const IntegerCodebook& codebook, const Fn& fn) {
  static_assert(kRows == kRowStep);
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(FloatTag()));
  const __m512i table = _mm512_loadu_si512(codebook.entries);
  for (column.n = 0; column.n < 4; column.n += kNTilesAtOnce) {
    IntegerSums sums;
    for (auto& row : sums) {
      for (auto& sum : row) sum = hn::Zero(IntTag());
    }
    for (int tile = 0; tile < column.count; ++tile) {
      WordVec words[kNTilesAtOnce * kVectorsAtOnce];
      const auto* tile_words =
          reinterpret_cast<const uint32_t*>(column.first + tile * column.stride_bytes);
      for (int v = 0; v < kNTilesAtOnce * kVectorsAtOnce; ++v) {
        words[v] =
            reader.Load(tile_words + v % kVectorsAtOnce * kLanes, column.n + v / kVectorsAtOnce);
      }
      const uint32_t* tile_weights = weights.first + tile * kTileOrderValues / 2;
      MultiplyPair<0>(table, words, tile_weights, weights.stride, sums);
      MultiplyPair<1>(table, words, tile_weights, weights.stride, sums);
      MultiplyPair<2>(table, words, tile_weights, weights.stride, sums);
      MultiplyPair<3>(table, words, tile_weights, weights.stride, sums);
    }
    for (int row = 0; row < kRowStep; ++row) {
      const auto unit = hn::Set(FloatTag(), weights.units[row]);
      for (int v = 0; v < kNTilesAtOnce * kVectorsAtOnce; ++v) {
        const int lane = (column.n + v / kVectorsAtOnce) * kTileLanes + v % kVectorsAtOnce * kLanes;
        fn(row, lane, hn::Mul(hn::ConvertTo(FloatTag(), sums[row][v]), unit));
      }
    }
  }
}
static_assert(kVectorsAtOnce * hn::MaxLanes(FloatTag()) == kTileLanes);

#else
constexpr bool kHasIntegerDot = false;
#endif  // HWY_TARGET == HWY_AVX3_DL

// Whether `Reader`'s codes may take the integer path for `kRows` rows.
template <class Reader, int kRows>
constexpr bool CanMultiplyIntegers() {
  return kHasIntegerDot && kRows == kRowStep && Reader::kHasIntegerCodebook;
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_INTEGER_DOT_INL_H_
