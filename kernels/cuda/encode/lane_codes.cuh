// The codes that a lane owns in the tiles of 32 tokens of a group, between quantizing and storing.
#pragma once

#include "kernels/cuda/encode/codebook.cuh"
#include "kernels/cuda/encode/lane_tokens.cuh"
#include "kernels/cuda/encode/pack.cuh"

namespace turbokv::cuda {

// The second signs of the channels whose codes a lane owns. K: bit 4 J + i; V: bit 2 J + r.
template <int kChannels, bool kIsV>
TURBOKV_HOST_DEVICE constexpr uint32_t LaneSigns(int lane) {
  uint32_t signs = 0;
  TURBOKV_UNROLL
  for (int block = 0; block < kChannels / 16; ++block) {
    const uint32_t word = SecondSigns(block / 2) >> (16 * (block & 1));
    if (kIsV) {
      const int g = lane >> 2;
      signs |= ((word >> g & 1) | (word >> (g + 8) & 1) << 1) << (2 * block);
    } else {
      signs |= (word >> (4 * (lane & 3)) & 15) << (4 * block);
    }
  }
  return signs;
}

// turboN: nibbles[G][n], the code of (h, i) in nibble 4 h + i; G counts 32-channel blocks.
template <int kChannels, bool kIsV>
struct NibbleCodes {
  static constexpr int kBlocks = kChannels / 32;
  uint32_t nibbles[kBlocks][4] = {};

  // Before a step's codes, which come last (K): what is there moves down, so that every step has
  // the same code. After four steps all is in place.
  TURBOKV_HOST_DEVICE void BeginStep() {
    TURBOKV_UNROLL
    for (int block = 0; block < kBlocks; ++block) {
      TURBOKV_UNROLL
      for (int n = 0; n < 3; ++n) nibbles[block][n] = nibbles[block][n + 1];
    }
  }

  // Codes of values whose sign is flipped: codebooks are symmetric. No value was at a threshold.
  TURBOKV_HOST_DEVICE void Flip(uint32_t lane_signs, uint32_t max_code) {
    TURBOKV_UNROLL
    for (int block = 0; block < kBlocks; ++block) {
      const uint32_t bits = lane_signs >> (kIsV ? 4 * block : 8 * block);
      TURBOKV_UNROLL
      for (int n = 0; n < 4; ++n) {
        if constexpr (kIsV) {
          nibbles[block][n] ^= bits >> n & 1 ? max_code * 0x11111111u : 0;
        } else {
          nibbles[block][n] ^= Spread(bits & 0xff) * max_code;
        }
      }
    }
  }

  // Overwrites a token's codes by those in `bytes`, one a channel.
  TURBOKV_HOST_DEVICE void Replace(int lane, int token, const uint8_t* bytes) {
    if (!LaneTokens<kIsV>::Shares(lane, token)) return;
    const int index = LaneTokens<kIsV>::Index(token);
    TURBOKV_UNROLL
    for (int block = 0; block < kBlocks; ++block) {
      if constexpr (kIsV) {
        TURBOKV_UNROLL
        for (int n = 0; n < 4; ++n) {
          const uint32_t code = bytes[32 * block + 8 * n + (lane >> 2)];
          nibbles[block][n] = (nibbles[block][n] & ~(15u << (4 * index))) | code << (4 * index);
        }
      } else {
        const uint8_t* quads = bytes + 32 * block + 4 * (lane & 3);
        const uint32_t word = NibblesOfBytes(*reinterpret_cast<const uint32_t*>(quads)) |
                              NibblesOfBytes(*reinterpret_cast<const uint32_t*>(quads + 16)) << 16;
        TURBOKV_UNROLL
        for (int n = 0; n < 4; ++n) {
          if (n == index) nibbles[block][n] = word;
        }
      }
    }
  }

 private:
  // Bit b to bit 4 b.
  static TURBOKV_HOST_DEVICE uint32_t Spread(uint32_t bits) {
    bits = (bits | bits << 12) & 0x000f000fu;
    bits = (bits | bits << 6) & 0x03030303u;
    return (bits | bits << 3) & 0x11111111u;
  }
};

// intN: quads[G][n][h], code i in byte i.
template <int kChannels, bool kIsV>
struct ByteCodes {
  static constexpr int kBlocks = kChannels / 32;
  uint32_t quads[kBlocks][4][2] = {};

  // As in NibbleCodes; of V, Put moves bytes.
  TURBOKV_HOST_DEVICE void BeginStep() {
    if constexpr (!kIsV) {
      TURBOKV_UNROLL
      for (int block = 0; block < kBlocks; ++block) {
        TURBOKV_UNROLL
        for (int n = 0; n < 3; ++n) {
          quads[block][n][0] = quads[block][n + 1][0];
          quads[block][n][1] = quads[block][n + 1][1];
        }
      }
    }
  }

  TURBOKV_HOST_DEVICE void Put(int block, uint32_t quad) {
    if constexpr (kIsV) {
      TURBOKV_UNROLL
      for (int r = 0; r < 2; ++r) {
        uint32_t(&words)[2] = quads[block >> 1][2 * (block & 1) + r];
        words[0] = SelectBytes(words[0], words[1], 0x5432u);
        words[1] = SelectBytes(words[1], quad, r == 0 ? 0x5432u : 0x7632u);
      }
    } else {
      quads[block >> 1][3][block & 1] = quad;
    }
  }

  TURBOKV_HOST_DEVICE void Replace(int lane, int token, const uint8_t* bytes) {
    if (!LaneTokens<kIsV>::Shares(lane, token)) return;
    const int index = LaneTokens<kIsV>::Index(token);
    TURBOKV_UNROLL
    for (int block = 0; block < kBlocks; ++block) {
      TURBOKV_UNROLL
      for (int n = 0; n < 4; ++n) {
        TURBOKV_UNROLL
        for (int h = 0; h < 2; ++h) {
          uint32_t& quad = quads[block][n][h];
          if constexpr (kIsV) {
            const int shift = 8 * (index & 3);
            const uint32_t code = bytes[32 * block + 8 * n + (lane >> 2)];
            if (h == index >> 2) quad = (quad & ~(0xffu << shift)) | code << shift;
          } else {
            const uint8_t* from = bytes + 32 * block + 16 * h + 4 * (lane & 3);
            if (n == index) quad = *reinterpret_cast<const uint32_t*>(from);
          }
        }
      }
    }
  }
};

}  // namespace turbokv::cuda
