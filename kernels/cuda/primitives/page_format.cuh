// The page format as compile-time numbers, for kernels: the same as kernels/format/page_layout.h,
// for the head dimensions that need no padding (64, 128, 256). tests/unit/kernels/cuda compares
// the two for every codec.
#pragma once

#include <cstdint>

#include "kernels/format/codec_id.h"

namespace turbokv::cuda {

inline constexpr int kPageHeaderBytes = 128;
inline constexpr int kSectionAlignment = 128;
inline constexpr int kTokenTiles = kPageTokens / kTileTokens;
// Byte offset of the header's k_exponent and v_exponent (int16 each, adjacent), and the 16 bytes
// that hold them.
inline constexpr int kHeaderExponentsOffset = 26;
inline constexpr int kHeaderPieceOffset = 16;
inline constexpr int kHeaderPieceBytes = 16;

constexpr bool SupportedHeadDim(int head_dim) {
  return head_dim == 64 || head_dim == 128 || head_dim == 256;
}

// Channels that are rotated together.
constexpr int GroupChannels(int head_dim) { return head_dim == 64 ? 64 : 128; }
constexpr int GroupCount(int head_dim) { return head_dim / GroupChannels(head_dim); }

constexpr int AlignSection(int bytes) {
  return (bytes + kSectionAlignment - 1) / kSectionAlignment * kSectionAlignment;
}

constexpr int TileWords(Codec codec) { return FactsOf(codec).code_bits; }  // 32-bit words a lane
constexpr int TileBytes(Codec codec) { return 128 * FactsOf(codec).code_bits; }
constexpr int CodeSectionBytes(Codec codec, int head_dim) {
  return kPageTokens * head_dim * FactsOf(codec).code_bits / 8;
}

// Rows of 128 fp16 scales: a 32-channel block (q8_0, q4_0), a group (turboN), or step and minimum
// of a group (intN).
constexpr int ScaleRows(Codec codec, int head_dim) {
  switch (FactsOf(codec).scale_kind) {
    case ScaleKind::kBlockFp16:
      return head_dim / kScaleBlockChannels;
    case ScaleKind::kGroupFp16:
      return GroupCount(head_dim);
    case ScaleKind::kGroupStepMinFp16:
      return 2 * GroupCount(head_dim);
    default:
      return 0;
  }
}
// Channels are scaled together in this many groups (one where there is no scale by token).
inline constexpr int kMaxScaleGroups = 2;  // of rotated codecs
constexpr int ScaleGroups(Codec codec, int head_dim) {
  const int rows = ScaleRows(codec, head_dim);
  if (FactsOf(codec).scale_kind == ScaleKind::kGroupStepMinFp16) return rows / 2;
  return rows == 0 ? 1 : rows;
}
constexpr int ScaleSectionBytes(Codec codec, int head_dim) {
  if (FactsOf(codec).scale_kind == ScaleKind::kHeadFp32) return 4;
  return ScaleRows(codec, head_dim) * kPageTokens * 2;
}

constexpr bool IsQuantized(Codec codec) { return FactsOf(codec).scale_kind != ScaleKind::kNone; }
constexpr bool IsTurbo(Codec codec) { return FactsOf(codec).scale_kind == ScaleKind::kGroupFp16; }
constexpr bool IsAffine(Codec codec) {
  return FactsOf(codec).scale_kind == ScaleKind::kGroupStepMinFp16;
}

// One tensor's half of a slice: codes, scales and, for K with K mean, the mean.
constexpr int HalfBytes(Codec codec, int head_dim, bool mean) {
  return AlignSection(CodeSectionBytes(codec, head_dim)) +
         AlignSection(ScaleSectionBytes(codec, head_dim)) + (mean ? AlignSection(2 * head_dim) : 0);
}
// Offsets inside a half.
constexpr int ScalesOffset(Codec codec, int head_dim) {
  return AlignSection(CodeSectionBytes(codec, head_dim));
}
constexpr int MeanOffset(Codec codec, int head_dim) {
  return ScalesOffset(codec, head_dim) + AlignSection(ScaleSectionBytes(codec, head_dim));
}

// TurboQuant's centroids are sigma x these over the divisor (kernels/format/rotation.h has the
// public numbers, sigma = 1/sqrt(group channels)); the tables are what int8 products use.
struct IntegerTable {
  int magnitudes[8];  // ascending, of the upper half; the lower half is their mirror image
  int count;
  float divisor;
};
constexpr IntegerTable IntegerTableOf(Codec codec) {
  if (codec == Codec::kTurbo2) return {{15, 50}, 2, 33.12f};
  if (codec == Codec::kTurbo3) return {{14, 43, 77, 125}, 4, 57.84f};
  return {{5, 15, 25, 36, 48, 62, 79, 104}, 8, 38.21f};
}

}  // namespace turbokv::cuda
