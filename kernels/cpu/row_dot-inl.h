// The one product behind scores and values: codes of a column of tiles times a vector.

#if defined(KERNELS_CPU_ROW_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_ROW_DOT_INL_H_
#undef KERNELS_CPU_ROW_DOT_INL_H_
#else
#define KERNELS_CPU_ROW_DOT_INL_H_
#endif

#include "absl/types/span.h"
#include "hwy/cache_control.h"
#include "kernels/cpu/code_readers-inl.h"
#include "kernels/cpu/tile_order.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {

// Fetches part `part` of `parts` of `bytes` into the cache.
HWY_INLINE void PrefetchPart(absl::Span<const uint8_t> bytes, int part, int parts) {
  constexpr size_t kCacheLineBytes = 64;
  const size_t end = bytes.size() * (part + 1) / parts;
  for (size_t i = bytes.size() * part / parts; i < end; i += kCacheLineBytes) {
    hwy::Prefetch(bytes.data() + i);
  }
}

// n-tiles `n` and `n + 1` of `count` tiles, `stride_bytes` apart.
struct TileColumn {
  const uint8_t* first;
  size_t stride_bytes;
  int count;
  int n;
};
constexpr int kNTilesAtOnce = 2;

// Vectors in tile order (tile_order.h), 32 values a tile of the column; `stride` values apart.
struct WeightRows {
  const float* first;
  size_t stride;
};

// What is worked on together: `kVectorsAtOnce` vectors of adjacent tile lanes in each of two
// n-tiles. Enough to use every fetched weight often and to hide the latency of FMA, few enough for
// the accumulators to stay in registers (32 with AVX-512, 16 elsewhere).
constexpr int kVectorsAtOnce = HWY_TARGET <= HWY_AVX3 ? 2 : 1;
constexpr int kLanesAtOnce = kVectorsAtOnce * static_cast<int>(hn::MaxLanes(FloatTag()));
static_assert(kTileLanes % kLanesAtOnce == 0);

template <int kRows>
struct Accumulators {
  // One row alone needs more independent sums than it has vectors.
  static constexpr int kChains = kRows == 1 ? 2 : 1;

  Accumulators() {
    for (auto& row : sums) {
      for (auto& vector : row) {
        for (auto& sum : vector) sum = hn::Zero(FloatTag());
      }
    }
  }

  // Of vector u of n-tile n + `second`.
  HWY_INLINE FloatVec Sum(int row, int second, int u) const {
    const FloatVec* chains = sums[row][second * kVectorsAtOnce + u];
    FloatVec sum = chains[0];
    for (int chain = 1; chain < kChains; ++chain) sum = hn::Add(sum, chains[chain]);
    return sum;
  }

  FloatVec sums[kRows][kNTilesAtOnce * kVectorsAtOnce][kChains];
};

template <int kIndex, int kRows, class Reader>
HWY_INLINE void MultiplyCode(const Reader& reader, const typename Reader::State* states,
                             const WeightRows& weights, Accumulators<kRows>& accumulators) {
  const FloatTag d;
  constexpr int kVectors = kNTilesAtOnce * kVectorsAtOnce;
  constexpr int kChain = kIndex % Accumulators<kRows>::kChains;
  FloatVec values[kVectors];
  for (int v = 0; v < kVectors; ++v) values[v] = reader.template Value<kIndex>(states[v]);
  for (int row = 0; row < kRows; ++row) {
    const auto weight = hn::LoadDup128(d, weights.first + row * weights.stride + 4 * kIndex);
    for (int v = 0; v < kVectors; ++v) {
      auto& sum = accumulators.sums[row][v][kChain];
      sum = hn::MulAdd(values[v], weight, sum);
    }
  }
}

// Adds to the accumulators of tile lanes lane..lane + kLanesAtOnce - 1:
//   sum over the column's tiles and codes (h, i) of code x weight
template <int kRows, class Reader>
HWY_INLINE void MultiplyColumn(const Reader& reader, const TileColumn& column, WeightRows weights,
                               int lane, Accumulators<kRows>& accumulators) {
  for (int tile = 0; tile < column.count; ++tile) {
    const auto* words =
        reinterpret_cast<const uint32_t*>(column.first + tile * column.stride_bytes) + lane;
    typename Reader::State states[kNTilesAtOnce * kVectorsAtOnce];
    for (int second = 0; second < kNTilesAtOnce; ++second) {
      for (int u = 0; u < kVectorsAtOnce; ++u) {
        states[second * kVectorsAtOnce + u] =
            reader.Load(words + u * hn::MaxLanes(FloatTag()), column.n + second);
      }
    }
    MultiplyCode<0>(reader, states, weights, accumulators);
    MultiplyCode<1>(reader, states, weights, accumulators);
    MultiplyCode<2>(reader, states, weights, accumulators);
    MultiplyCode<3>(reader, states, weights, accumulators);
    MultiplyCode<4>(reader, states, weights, accumulators);
    MultiplyCode<5>(reader, states, weights, accumulators);
    MultiplyCode<6>(reader, states, weights, accumulators);
    MultiplyCode<7>(reader, states, weights, accumulators);
    weights.first += kTileOrderValues;
  }
}

// Calls fn(row, 32 n + lane, sums) for every n-tile n of the column and every vector of its lanes.
template <int kRows, class Reader, class Fn>
HWY_INLINE void ForEachPart(const Reader& reader, TileColumn column, const WeightRows& weights,
                            const Fn& fn) {
  for (column.n = 0; column.n < 4; column.n += kNTilesAtOnce) {
    for (int lane = 0; lane < kTileLanes; lane += kLanesAtOnce) {
      Accumulators<kRows> accumulators;
      MultiplyColumn<kRows>(reader, column, weights, lane, accumulators);
      for (int row = 0; row < kRows; ++row) {
        for (int second = 0; second < kNTilesAtOnce; ++second) {
          for (int u = 0; u < kVectorsAtOnce; ++u) {
            const int first_lane = lane + u * static_cast<int>(hn::MaxLanes(FloatTag()));
            fn(row, (column.n + second) * kTileLanes + first_lane,
               accumulators.Sum(row, second, u));
          }
        }
      }
    }
  }
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_ROW_DOT_INL_H_
