// What codecs are, without strings or statuses: shared by host code and GPU code (which NVRTC
// compiles too, so nothing but <cstdint> may be included).
#pragma once

#include <cstdint>

namespace turbokv {

// Tokens of a page, and of a block.
inline constexpr int kPageTokens = 128;
// Codes are stored in tiles of 32 tokens x 32 channels (kernels/format/tile.h).
inline constexpr int kTileTokens = 32;
inline constexpr int kTileChannels = 32;
// Values of one scale in q8_0 and q4_0.
inline constexpr int kScaleBlockChannels = 32;

// Persisted in page headers: never renumber, never reuse.
enum class Codec : uint8_t {
  kBf16 = 1,
  kFp16 = 2,
  kFp8E4m3 = 3,
  kQ8_0 = 4,
  kQ4_0 = 5,
  kInt8 = 6,
  kInt6 = 7,
  kInt5 = 8,
  kInt4 = 9,
  kTurbo4 = 10,
  kTurbo3 = 11,
  kTurbo2 = 12,
  // Named, not implemented yet: the policy parser knows them and refuses them by name.
  kTurbo3Tcq = 13,
  kTurbo2Tcq = 14,
  kTurbo4Tcq = 15,
  kKlt4 = 16,
  kKlt3 = 17,
  kKlt2 = 18,
};

// What accompanies the codes of a vector.
enum class ScaleKind : uint8_t {
  kNone,              // bf16, fp16: the code is the value
  kHeadFp32,          // fp8_e4m3: one fp32 scale a page, head and K or V
  kBlockFp16,         // q8_0, q4_0: one fp16 scale a token and 32 channels
  kGroupFp16,         // turboN: one fp16 scale a token and group
  kGroupStepMinFp16,  // intN: fp16 step and minimum a token and group
};

// How the nibbles of a tile word are ordered (kernels/format/tile.h).
enum class NibbleOrder : uint8_t {
  kTable,   // nibble n = code n: four codes in a row feed one PRMT
  kAffine,  // nibble 2i+h = code 4h+i: `word & 0x0f0f0f0f` is four codes in a row
};

// What the bytes of a codec look like.
struct CodecFacts {
  int code_bits;  // 2, 3, 4, 5, 6, 8 or 16
  bool rotated;   // codes are of the Hadamard-rotated vector
  ScaleKind scale_kind;
  NibbleOrder nibble_order;
};

constexpr CodecFacts FactsOf(Codec codec) {
  switch (codec) {
    case Codec::kBf16:
    case Codec::kFp16:
      return {16, false, ScaleKind::kNone, NibbleOrder::kAffine};
    case Codec::kFp8E4m3:
      return {8, false, ScaleKind::kHeadFp32, NibbleOrder::kAffine};
    case Codec::kQ8_0:
      return {8, false, ScaleKind::kBlockFp16, NibbleOrder::kAffine};
    case Codec::kQ4_0:
      return {4, false, ScaleKind::kBlockFp16, NibbleOrder::kAffine};
    case Codec::kInt8:
      return {8, true, ScaleKind::kGroupStepMinFp16, NibbleOrder::kAffine};
    case Codec::kInt6:
      return {6, true, ScaleKind::kGroupStepMinFp16, NibbleOrder::kAffine};
    case Codec::kInt5:
      return {5, true, ScaleKind::kGroupStepMinFp16, NibbleOrder::kAffine};
    case Codec::kInt4:
      return {4, true, ScaleKind::kGroupStepMinFp16, NibbleOrder::kAffine};
    case Codec::kTurbo4:
    case Codec::kTurbo4Tcq:
    case Codec::kKlt4:
      return {4, true, ScaleKind::kGroupFp16, NibbleOrder::kTable};
    case Codec::kTurbo3:
    case Codec::kTurbo3Tcq:
    case Codec::kKlt3:
      return {3, true, ScaleKind::kGroupFp16, NibbleOrder::kTable};
    case Codec::kTurbo2:
    case Codec::kTurbo2Tcq:
    case Codec::kKlt2:
      return {2, true, ScaleKind::kGroupFp16, NibbleOrder::kTable};
  }
  return {};
}

}  // namespace turbokv
