// One code of a tile, at a time: the GPU's kernels/format/tile.h. Slow; for any codec.
#pragma once

#include "kernels/cuda/primitives/host_device.cuh"
#include "kernels/format/codec_id.h"

namespace turbokv::cuda {

// Where the code of a token and channel (0..31 each) is: lane 4 g + t, number (n, h, i).
struct CodePlace {
  int lane, n, h, i;
};

TURBOKV_HOST_DEVICE CodePlace PlaceInTile(bool is_v, int token, int channel) {
  if (is_v) {
    return {4 * (channel & 7) + (token >> 2 & 3), channel >> 3, token >> 4, token & 3};
  }
  const int g = 2 * (token >> 2 & 3) + (token & 1);
  const int n = 2 * (token >> 4) + (token >> 1 & 1);
  return {4 * g + (channel >> 2 & 3), n, channel >> 4, channel & 3};
}

TURBOKV_HOST_DEVICE uint32_t ReadTileCode(const uint32_t* tile, const CodecFacts& facts,
                                          const CodePlace& place) {
  const auto word = [&](int row) { return tile[kWarpLanes * row + place.lane]; };
  const auto [lane, n, h, i] = place;
  const int c = 4 * h + i;
  switch (facts.code_bits) {
    case 2:
      return word(n / 2) >> (4 * c + 2 * (n & 1)) & 3;
    case 3: {
      if (n < 3) return word(n) >> 4 * c & 7;
      const int plane = 4 * c + 3;
      return (word(0) >> plane & 1) | (word(1) >> plane & 1) << 1 | (word(2) >> plane & 1) << 2;
    }
    case 8:
      return word(2 * n + h) >> 8 * i & 0xff;
    case 16:
      return word(2 * (2 * n + h) + (i >> 1)) >> 16 * (i & 1) & 0xffff;
    default: {  // 4, 5, 6
      const int nibble = facts.nibble_order == NibbleOrder::kTable ? c : 2 * i + h;
      uint32_t code = word(n) >> 4 * nibble & 15;
      for (int bit = 4; bit < facts.code_bits; ++bit) {
        code |= (word(bit) >> (8 * i + 2 * n + h) & 1) << bit;
      }
      return code;
    }
  }
}

}  // namespace turbokv::cuda
