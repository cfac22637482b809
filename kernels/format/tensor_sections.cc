#include "kernels/format/tensor_sections.h"

#include <cstring>

namespace turbokv {
namespace {

size_t TileOffsetOf(Codec codec, int padded_dim, int token, int channel) {
  return TileOffset(TraitsOf(codec).code_bits, padded_dim, token, channel);
}

TilePosition PositionOf(TileKind kind, int token, int channel) {
  return PositionInTile(kind, token % kTileTokens, channel % kTileChannels);
}

size_t ScaleOffset(int row, int token) {
  return (static_cast<size_t>(row) * kPageTokens + token) * sizeof(uint16_t);
}

}  // namespace

uint32_t ReadCode(const TensorSections<const uint8_t>& sections, int token, int channel) {
  const CodecTraits& traits = TraitsOf(sections.codec);
  const uint8_t* tile =
      sections.codes + TileOffsetOf(sections.codec, sections.padded_dim, token, channel);
  return GetCode(tile, traits.code_bits, traits.nibble_order,
                 PositionOf(sections.tile_kind, token, channel));
}

void WriteCode(const TensorSections<uint8_t>& sections, int token, int channel, uint32_t code) {
  const CodecTraits& traits = TraitsOf(sections.codec);
  uint8_t* tile =
      sections.codes + TileOffsetOf(sections.codec, sections.padded_dim, token, channel);
  PutCode(tile, traits.code_bits, traits.nibble_order,
          PositionOf(sections.tile_kind, token, channel), code);
}

uint16_t ReadScale(const TensorSections<const uint8_t>& sections, int row, int token) {
  uint16_t bits;
  std::memcpy(&bits, sections.scales + ScaleOffset(row, token), sizeof(bits));
  return bits;
}

void WriteScale(const TensorSections<uint8_t>& sections, int row, int token, uint16_t bits) {
  std::memcpy(sections.scales + ScaleOffset(row, token), &bits, sizeof(bits));
}

}  // namespace turbokv
