// The order in which the 32 values that meet a tile's codes are laid out.
//
// Lane 4g + t of a tile owns, in every n-tile, the codes of positions 16h + 4t + i of the tile's
// inner dimension (channels of K, tokens of V; kernels/format/tile.h). A kernel that multiplies
// code (h, i) of every lane needs four values, one for each t, repeated: so values are stored as
// [h][i][t], and one 128-bit broadcast fetches them.
#pragma once

namespace turbokv::cpu {

inline constexpr int kTileOrderValues = 32;

// Where value `position` (0..31) of the inner dimension is stored.
constexpr int TileOrderOf(int position) {
  const int h = position >> 4;
  const int t = (position >> 2) & 3;
  const int i = position & 3;
  return (4 * h + i) * 4 + t;
}

// The reverse: which position is stored at `index`.
constexpr int PositionAt(int index) {
  const int t = index & 3;
  const int i = (index >> 2) & 3;
  const int h = index >> 4;
  return 16 * h + 4 * t + i;
}

static_assert(TileOrderOf(PositionAt(0)) == 0 && TileOrderOf(PositionAt(29)) == 29);

}  // namespace turbokv::cpu
