// Codecs: how one K or V vector becomes bytes. Values and numbers: docs/formats/codecs.md.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

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

struct CodecTraits {
  Codec codec;
  absl::string_view name;
  int code_bits;  // 2, 3, 4, 5, 6, 8 or 16
  bool rotated;   // codes are of the Hadamard-rotated vector
  ScaleKind scale_kind;
  NibbleOrder nibble_order;
  bool implemented;
};

// Every codec of the enum, implemented or not.
absl::Span<const CodecTraits> AllCodecs();

// Precondition: `codec` is a value of the enum.
const CodecTraits& TraitsOf(Codec codec);

// The codec stored as `id`; INVALID_ARGUMENT for an unknown id.
absl::StatusOr<Codec> CodecFromId(uint8_t id);

// The codec called `name` ("turbo3"); INVALID_ARGUMENT lists the known names. Says nothing about
// whether it is implemented.
absl::StatusOr<Codec> CodecFromName(absl::string_view name);

inline absl::string_view CodecName(Codec codec) { return TraitsOf(codec).name; }

}  // namespace turbokv
