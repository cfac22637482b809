#include "kernels/format/tile.h"

namespace turbokv {
namespace {

// Where one bit of a code is.
struct BitPlace {
  int word;
  int bit;
};

BitPlace PlaceOf(int code_bits, NibbleOrder order, int code, int bit) {
  const int n = code >> 3;
  const int c = code & 7;  // 4 h + i
  const int h = c >> 2;
  const int i = c & 3;
  const int affine_nibble = 2 * i + h;
  switch (code_bits) {
    case 2:
      return {n / 2, 4 * c + 2 * (n & 1) + bit};
    case 3:
      return n < 3 ? BitPlace{n, 4 * c + bit} : BitPlace{bit, 4 * c + 3};
    case 4:
      return {n, 4 * (order == NibbleOrder::kTable ? c : affine_nibble) + bit};
    case 5:
    case 6:
    case 7:
      return bit < 4 ? BitPlace{n, 4 * affine_nibble + bit} : BitPlace{bit, 8 * i + 2 * n + h};
    case 8:
      return {2 * n + h, 8 * i + bit};
    default:  // 16
      return {2 * (2 * n + h) + (i >> 1), 16 * (i & 1) + bit};
  }
}

// Byte and bit of a place in a tile: words are little-endian, in rows of 32 lanes.
size_t ByteOf(int lane, BitPlace place) {
  return 4 * (static_cast<size_t>(kTileLanes) * place.word + lane) + place.bit / 8;
}

}  // namespace

uint32_t GetCode(const uint8_t* tile, int code_bits, NibbleOrder order, TilePosition position) {
  uint32_t code = 0;
  for (int bit = 0; bit < code_bits; ++bit) {
    const BitPlace place = PlaceOf(code_bits, order, position.code, bit);
    const uint32_t value = (tile[ByteOf(position.lane, place)] >> (place.bit % 8)) & 1;
    code |= value << bit;
  }
  return code;
}

void PutCode(uint8_t* tile, int code_bits, NibbleOrder order, TilePosition position,
             uint32_t code) {
  for (int bit = 0; bit < code_bits; ++bit) {
    const BitPlace place = PlaceOf(code_bits, order, position.code, bit);
    tile[ByteOf(position.lane, place)] |= ((code >> bit) & 1) << (place.bit % 8);
  }
}

}  // namespace turbokv
