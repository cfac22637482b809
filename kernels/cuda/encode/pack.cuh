// From codes to the words of a tile's lane (kernels/format/tile.h): j = 8 n + 4 h + i.
//
// A quad is the four codes i = 0..3 of one (n, h): one a byte, or one a nibble of 16 bits.
#pragma once

#include "kernels/cuda/primitives/host_device.cuh"
#include "kernels/format/codec_id.h"

namespace turbokv::cuda {

// Four codes of 4 bits: from bytes to nibbles.
TURBOKV_HOST_DEVICE uint32_t NibblesOfBytes(uint32_t bytes) {
  const uint32_t pairs = (bytes | bytes >> 4) & 0x00ff00ffu;
  return (pairs | pairs >> 8) & 0xffffu;
}

// nibbles[n]: code 4 h + i in nibble 4 h + i. Table order, of kBits bits: as turboN is stored.
template <int kBits>
TURBOKV_HOST_DEVICE void PackTable(const uint32_t (&nibbles)[4], uint32_t (&words)[kBits]) {
  static_assert(kBits >= 2 && kBits <= 4);
  if constexpr (kBits == 2) {
    words[0] = nibbles[0] | nibbles[1] << 2;
    words[1] = nibbles[2] | nibbles[3] << 2;
  } else {
    TURBOKV_UNROLL
    for (int r = 0; r < kBits; ++r) {
      words[r] = nibbles[r];
      if constexpr (kBits == 3) words[r] |= (nibbles[3] >> r & 0x11111111u) << 3;
    }
  }
}

// quads[n][h]: code i in byte i. Affine order, 4, 5, 6 or 8 bits.
template <int kBits>
TURBOKV_HOST_DEVICE void PackAffine(const uint32_t (&quads)[4][2], uint32_t (&words)[kBits]) {
  static_assert(kBits == 4 || kBits == 5 || kBits == 6 || kBits == 8);
  TURBOKV_UNROLL
  for (int n = 0; n < 4; ++n) {
    if constexpr (kBits == 8) {
      words[2 * n] = quads[n][0];
      words[2 * n + 1] = quads[n][1];
    } else {
      words[n] = (quads[n][0] & 0x0f0f0f0fu) | (quads[n][1] & 0x0f0f0f0fu) << 4;
    }
  }
  if constexpr (kBits == 5 || kBits == 6) {
    TURBOKV_UNROLL
    for (int plane = 4; plane < kBits; ++plane) {
      uint32_t word = 0;
      TURBOKV_UNROLL
      for (int n = 0; n < 4; ++n) {
        word |= (quads[n][0] >> plane & 0x01010101u) << (2 * n);
        word |= (quads[n][1] >> plane & 0x01010101u) << (2 * n + 1);
      }
      words[plane] = word;
    }
  }
}

// Any codec, from codes[j]; words: as many as the code has bits.
TURBOKV_HOST_DEVICE void PackLane(int code_bits, NibbleOrder order, const uint16_t (&codes)[32],
                                  uint32_t* words) {
  if (code_bits == 16) {
    for (int r = 0; r < 16; ++r) words[r] = codes[2 * r] | uint32_t{codes[2 * r + 1]} << 16;
    return;
  }
  uint32_t quads[4][2];
  uint32_t nibbles[4];
  for (int n = 0; n < 4; ++n) {
    for (int h = 0; h < 2; ++h) {
      const uint16_t* quad = codes + 8 * n + 4 * h;
      quads[n][h] = quad[0] | quad[1] << 8 | quad[2] << 16 | uint32_t{quad[3]} << 24;
    }
    if (code_bits <= 4) {
      nibbles[n] = NibblesOfBytes(quads[n][0]) | NibblesOfBytes(quads[n][1]) << 16;
    }
  }
  const auto copy = [&](const auto& packed, int count) {
    for (int r = 0; r < count; ++r) words[r] = packed[r];
  };
  uint32_t two[2], three[3], four[4], five[5], six[6], eight[8];
  if (code_bits == 2) {
    PackTable<2>(nibbles, two);
    copy(two, 2);
  } else if (code_bits == 3) {
    PackTable<3>(nibbles, three);
    copy(three, 3);
  } else if (code_bits == 4 && order == NibbleOrder::kTable) {
    PackTable<4>(nibbles, four);
    copy(four, 4);
  } else if (code_bits == 4) {
    PackAffine<4>(quads, four);
    copy(four, 4);
  } else if (code_bits == 5) {
    PackAffine<5>(quads, five);
    copy(five, 5);
  } else if (code_bits == 6) {
    PackAffine<6>(quads, six);
    copy(six, 6);
  } else {
    PackAffine<8>(quads, eight);
    copy(eight, 8);
  }
}

}  // namespace turbokv::cuda
