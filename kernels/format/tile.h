// The order of codes inside a 32 x 32 tile (32 tokens x 32 channels of one head).
//
// The tile serves `mma.m16n8k32` (int8) with K or V as the B operand: lane l = 4g + t of a warp
// owns 32 of the 1024 codes, so a tile of w-bit codes is w 32-bit words a lane, stored as w rows of
// 32 lanes: word r of lane l is the little-endian uint32 at index 32 r + l.
//
// A lane's codes are numbered j = 8 n + 4 h + i  (n: n-tile 0..3, h: half 0..1, i: 0..3).
//   K: token   4 (g >> 1) + 2 (n & 1) + (g & 1) + 16 (n >> 1),  channel 16 h + 4 t + i
//   V: channel 8 n + g,                                         token   16 h + 4 t + i
// With this order of K's tokens, the accumulator of the scores already is the A operand of the
// product with V: no shuffle, no transpose.
//
// Words, by width (c = code 4h+i of n-tile n):
//   2    word n/2:  bits [4c + 2(n&1), +2)
//   3    words 0..2: low 3 bits of nibble c = code of n-tile 0..2; bit 3 of nibble c of word b =
//        bit b of the code of n-tile 3
//   4    word n, nibble c (table) or nibble 2i+h (affine)
//   5..7 words 0..3 as 4 bits affine with the low four bits; word 4+b = plane of bit 4+b, at bit
//        position 8 i + 2 n + h
//   8    word 2n+h, byte i
//   16   word 2(2n+h) + (i >> 1), half i & 1
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/format/codec.h"

namespace turbokv {

inline constexpr int kTileLanes = 32;

constexpr size_t TileBytes(int code_bits) { return size_t{128} * code_bits; }

enum class TileKind : uint8_t { kK, kV };

// Which lane owns the code of (token, channel), 0..31 each, and under which number j.
struct TilePosition {
  int lane;
  int code;
};

constexpr TilePosition PositionInTile(TileKind kind, int token, int channel) {
  if (kind == TileKind::kK) {
    const int g = 2 * ((token >> 2) & 3) + (token & 1);
    const int n = 2 * (token >> 4) + ((token >> 1) & 1);
    return {4 * g + ((channel >> 2) & 3), 8 * n + 4 * (channel >> 4) + (channel & 3)};
  }
  const int g = channel & 7;
  const int n = channel >> 3;
  return {4 * g + ((token >> 2) & 3), 8 * n + 4 * (token >> 4) + (token & 3)};
}

// Reads or writes one code. Slow and obvious; the oracle of every packing kernel.
// `tile` holds TileBytes(code_bits) bytes; PutCode requires the code's bits to be zero before.
uint32_t GetCode(const uint8_t* tile, int code_bits, NibbleOrder order, TilePosition position);
void PutCode(uint8_t* tile, int code_bits, NibbleOrder order, TilePosition position, uint32_t code);

// Byte offset of the tile that holds (token, channel) in a slice's code section.
constexpr size_t TileOffset(int code_bits, int padded_dim, int token, int channel) {
  return (static_cast<size_t>(token / kTileTokens) * (padded_dim / kTileChannels) +
          channel / kTileChannels) *
         TileBytes(code_bits);
}

}  // namespace turbokv
