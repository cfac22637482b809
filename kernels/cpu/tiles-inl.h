// Steps between rows of codes and tiles, shared by packing and unpacking.
//
//   rows of codes  <->  byte tile (the 8-bit format: word 2n + h, byte i)  <->  tile of w-bit codes
//
// K's rows are tokens; V's are channels, so V is transposed on the way.

#if defined(KERNELS_CPU_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_TILES_INL_H_
#undef KERNELS_CPU_TILES_INL_H_
#else
#define KERNELS_CPU_TILES_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/format/tile.h"

HWY_BEFORE_NAMESPACE();
namespace turbokv::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kTileSide = 32;
static_assert(kTileSide == kTileTokens && kTileSide == kTileChannels);

// The row (token of K, channel of V) that lanes 4g..4g+3 own in n-tile n.
constexpr int RowOfLanes(TileKind kind, int g, int n) {
  if (kind == TileKind::kV) return 8 * n + g;
  return 4 * (g >> 1) + 2 * (n & 1) + (g & 1) + 16 * (n >> 1);
}

// A square of codes in memory: rows of 32, `stride` codes apart.
template <class T>
struct TileRows {
  T* first;
  ptrdiff_t stride;

  T* Row(int row) const { return first + row * stride; }
};

// to[c][r] = from[r][c], 16 bytes square a step: interleaving row i with row i + half rotates the
// address bits (row, column) by one; after log2(side) times rows and columns have changed places.
template <class T>
HWY_INLINE void Transpose(const TileRows<const T>& from, const TileRows<T>& to) {
  const hn::Full128<T> d;
  constexpr int kSide = 16 / sizeof(T);
  for (int r = 0; r < kTileSide; r += kSide) {
    for (int c = 0; c < kTileSide; c += kSide) {
      hn::Vec<hn::Full128<T>> a[kSide];
      for (int i = 0; i < kSide; ++i) a[i] = hn::LoadU(d, from.Row(r + i) + c);
      for (int rotated = 1; rotated < kSide; rotated *= 2) {
        hn::Vec<hn::Full128<T>> b[kSide];
        for (int i = 0; i < kSide / 2; ++i) {
          b[2 * i] = hn::InterleaveLower(d, a[i], a[i + kSide / 2]);
          b[2 * i + 1] = hn::InterleaveUpper(d, a[i], a[i + kSide / 2]);
        }
        for (int i = 0; i < kSide; ++i) a[i] = b[i];
      }
      for (int i = 0; i < kSide; ++i) hn::StoreU(a[i], d, to.Row(c + i) + r);
    }
  }
}

// Calls fn(n, g, h, row) for the pieces of a byte tile: lanes 4g..4g+3 of word 2n + h are the 16
// codes of `row` from column 16h on.
template <class Fn>
HWY_INLINE void ForEachPiece(TileKind kind, const Fn& fn) {
  for (int n = 0; n < 4; ++n) {
    for (int g = 0; g < 8; ++g) {
      for (int h = 0; h < 2; ++h) fn(n, g, h, RowOfLanes(kind, g, n));
    }
  }
}

}  // namespace turbokv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_TILES_INL_H_
