// From a tile's words, as they lie in a page, to codes that a thread finds by token.
//
// A warp decodes 32 tokens, a thread each. The lanes load the tiles as they lie, widen the codes to
// bytes and put them on a stage in shared memory (4096 bytes a warp), where every thread then reads
// the codes of its own token:
//   K  a row of 128 bytes a token, in channel order, the row's 16-byte chunks permuted; row 8 n + g
//      is the token whose codes the tile's lanes 4 g.. hold under n
//   V  a row of 32 tokens a channel
// 16-bit codes are staged likewise, 64 channels at a time. Nothing here needs a GPU: tests run it
// on the host.
#pragma once

#include "kernels/cuda/primitives/host_device.cuh"
#include "kernels/cuda/primitives/page_format.cuh"
#include "kernels/format/codec_id.h"

namespace turbokv::cuda {

inline constexpr int kStageRowBytes = 128;
inline constexpr int kStageBytes = kTileTokens * kStageRowBytes;
inline constexpr int kChunkBytes = 16;

// Codes are staged as halfwords, not bytes.
constexpr bool HasWideCodes(Codec codec) { return FactsOf(codec).code_bits == 16; }

// The token (0..31 of the tile) that a lane decodes.
template <bool kIsV>
TURBOKV_HOST_DEVICE int LaneToken(int lane) {
  if constexpr (kIsV) return lane;
  const int g = lane & 7;
  const int n = lane >> 3;
  return 4 * (g >> 1) + 2 * (n & 1) + (g & 1) + 16 * (n >> 1);
}

// --- Widening: code (n, h, i) becomes byte i of word 2 n + h
// --------------------------------------

// turboN codes are staged times four: byte offsets into a table of floats.
template <Codec kCodec>
TURBOKV_HOST_DEVICE void WidenTableCodes(const uint32_t (&words)[FactsOf(kCodec).code_bits],
                                         uint32_t (&bytes)[8]) {
  constexpr int kBits = FactsOf(kCodec).code_bits;
  constexpr uint32_t kMask = 0x04040404u * ((1u << kBits) - 1);
  TURBOKV_UNROLL
  for (int n = 0; n < 4; ++n) {
    uint32_t nibbles;
    if constexpr (kBits == 4) {
      nibbles = words[n];
    } else if constexpr (kBits == 3) {
      nibbles = n < 3 ? words[n]
                      : (words[0] >> 3 & 0x11111111u) | (words[1] >> 2 & 0x22222222u) |
                            (words[2] >> 1 & 0x44444444u);
    } else {
      nibbles = words[n / 2] >> 2 * (n & 1);
    }
    const uint32_t even = nibbles << 2 & kMask;  // codes 0, 2, 4, 6 of the eight
    const uint32_t odd = nibbles >> 2 & kMask;
    bytes[2 * n] = SelectBytes(even, odd, 0x5140);
    bytes[2 * n + 1] = SelectBytes(even, odd, 0x7362);
  }
}

// Affine codes of 4 to 8 bits. A q8_0 code, which is signed, gets 128 added.
template <Codec kCodec>
TURBOKV_HOST_DEVICE void WidenAffineCodes(const uint32_t (&words)[FactsOf(kCodec).code_bits],
                                          uint32_t (&bytes)[8]) {
  constexpr int kBits = FactsOf(kCodec).code_bits;
  TURBOKV_UNROLL
  for (int j = 0; j < 8; ++j) {
    if constexpr (kBits == 8) {
      bytes[j] = kCodec == Codec::kQ8_0 ? words[j] ^ 0x80808080u : words[j];
    } else {
      bytes[j] = words[j / 2] >> 4 * (j & 1) & 0x0f0f0f0fu;
      TURBOKV_UNROLL
      for (int plane = 4; plane < kBits; ++plane) {
        bytes[j] |= (words[plane] >> j & 0x01010101u) << plane;
      }
    }
  }
}

// --- The stage ----------------------------------------------------------------------------------

struct alignas(8) StagedHalf {
  uint32_t words[2];
};
struct alignas(16) StagedChunk {
  uint32_t words[4];
};

// Byte offset of a 16-byte chunk of a row; permuted so that neither the lanes of one instruction
// that write a column, nor those that read one, meet in a bank.
TURBOKV_HOST_DEVICE int ChunkOffset(int row, int chunk) {
  return row * kStageRowBytes + kChunkBytes * (chunk ^ (row & 7));
}

// Byte offset of codes (n, h, 0..3) of tile `tile`, counted along the channels.
template <bool kIsV, bool kWide>
TURBOKV_HOST_DEVICE int StagedOffset(int lane, int tile, int n, int h) {
  const int g = lane >> 2;
  const int t = lane & 3;
  if constexpr (kIsV) {
    const int channel = kTileChannels * tile + 8 * n + g;
    const int token = 16 * h + 4 * t;
    // The upper four channels of eight swap their halves: else they would share the banks of the
    // lower four.
    return kWide ? 64 * channel + 2 * token : 32 * channel + (token ^ (g & 4) << 2);
  } else {
    const int row = 8 * n + g;
    if constexpr (kWide) return ChunkOffset(row, 4 * tile + 2 * h + (t >> 1)) + 8 * (t & 1);
    return ChunkOffset(row, 2 * tile + h) + 4 * t;
  }
}

template <Codec kCodec, bool kIsV>
TURBOKV_HOST_DEVICE void StageTile(const uint32_t (&words)[FactsOf(kCodec).code_bits], int lane,
                                   int tile, uint8_t* stage) {
  if constexpr (HasWideCodes(kCodec)) {
    TURBOKV_UNROLL
    for (int j = 0; j < 8; ++j) {
      const int offset = StagedOffset<kIsV, true>(lane, tile, j >> 1, j & 1);
      *reinterpret_cast<StagedHalf*>(stage + offset) = {{words[2 * j], words[2 * j + 1]}};
    }
  } else {
    uint32_t bytes[8];
    if constexpr (IsTurbo(kCodec)) {
      WidenTableCodes<kCodec>(words, bytes);
    } else {
      WidenAffineCodes<kCodec>(words, bytes);
    }
    TURBOKV_UNROLL
    for (int j = 0; j < 8; ++j) {
      const int offset = StagedOffset<kIsV, false>(lane, tile, j >> 1, j & 1);
      *reinterpret_cast<uint32_t*>(stage + offset) = bytes[j];
    }
  }
}

// The staged codes of channels `begin`..begin + 7 of the lane's token; begin is a multiple of 8.
template <bool kIsV, bool kWide>
TURBOKV_HOST_DEVICE void ReadStaged(const uint8_t* stage, int lane, int begin,
                                    uint32_t (&codes)[8]) {
  if constexpr (kIsV) {
    TURBOKV_UNROLL
    for (int i = 0; i < 8; ++i) {
      if constexpr (kWide) {
        codes[i] = *reinterpret_cast<const uint16_t*>(stage + 64 * (begin + i) + 2 * lane);
      } else {
        codes[i] = stage[32 * (begin + i) + (lane ^ (i & 4) << 2)];
      }
    }
  } else if constexpr (kWide) {
    const auto chunk = *reinterpret_cast<const StagedChunk*>(stage + ChunkOffset(lane, begin / 8));
    TURBOKV_UNROLL
    for (int i = 0; i < 8; ++i) codes[i] = chunk.words[i / 2] >> 16 * (i & 1) & 0xffff;
  } else {
    const int offset = ChunkOffset(lane, begin / 16) + begin % 16;
    const auto half = *reinterpret_cast<const StagedHalf*>(stage + offset);
    TURBOKV_UNROLL
    for (int i = 0; i < 8; ++i) codes[i] = SelectBytes(half.words[i / 4], 0, 0x4440 + i % 4);
  }
}

}  // namespace turbokv::cuda
