// One head's K or V in a slice, code by code: the obvious way to read and write pages.
#pragma once

#include <cstdint>

#include "kernels/format/page_layout.h"
#include "kernels/format/tile.h"

namespace turbokv {

// Which of a page's tensors is meant.
enum class PageTensor : uint8_t { kK, kV };

// The sections of one tensor of one slice. Byte is uint8_t or const uint8_t; memory is borrowed.
template <typename Byte>
struct TensorSections {
  TensorSections(const PageLayout& layout, PageTensor tensor, Byte* slice)
      : codec(tensor == PageTensor::kK ? layout.shape.k_codec : layout.shape.v_codec),
        padded_dim(tensor == PageTensor::kK ? layout.k_padded_dim : layout.v_padded_dim),
        tile_kind(tensor == PageTensor::kK ? TileKind::kK : TileKind::kV),
        codes(slice + (tensor == PageTensor::kK ? layout.k_codes : layout.v_codes).offset_bytes),
        scales(slice +
               (tensor == PageTensor::kK ? layout.k_scales : layout.v_scales).offset_bytes) {}

  Codec codec;
  int padded_dim;
  TileKind tile_kind;
  Byte* codes;
  Byte* scales;
};

uint32_t ReadCode(const TensorSections<const uint8_t>& sections, int token, int channel);
// The code's bits must be zero before.
void WriteCode(const TensorSections<uint8_t>& sections, int token, int channel, uint32_t code);

// fp16 scales come in rows of 128 tokens: row = 32-channel block (q8_0, q4_0), group (turboN), or
// 2 group (step) and 2 group + 1 (minimum) (intN).
uint16_t ReadScale(const TensorSections<const uint8_t>& sections, int row, int token);
void WriteScale(const TensorSections<uint8_t>& sections, int row, int token, uint16_t bits);

}  // namespace turbokv
