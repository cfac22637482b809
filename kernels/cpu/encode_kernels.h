// The steps of encoding one head's K or V. Internal to kernels/cpu.
//
//   source -> LoadHead -> floats -> Encode* -> codes and scales -> PackTiles -> tiles
//
// Arithmetic follows kernels/reference operation by operation, in double, in the same order of
// sums; only independent values are worked on together. Hence the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/format/codec.h"
#include "kernels/format/head_groups.h"
#include "kernels/format/tile.h"
#include "kernels/kv_view.h"

namespace turbokv::cpu {

// One head's K or V in the caller's memory; `data` points at the head's first value.
struct HeadSource {
  const void* data;
  ValueType type;
  ptrdiff_t token_stride;  // in values
  int tokens;
  int head_dim;
};

// The largest |value|; infinity where a value is not finite.
float LargestMagnitude(const HeadSource& source);

// values[token][padded_dim], zeros behind head_dim.
void LoadHead(const HeadSource& source, int padded_dim, float* values);

// sums[c] = values[0][c] + values[1][c] + ..., in this order.
void SumTokens(const float* values, int tokens, int padded_dim, double* sums);

// What is encoded: values[token][c] * factor - mean[c], both in double.
struct CentredHead {
  const float* values;
  int tokens;
  int padded_dim;
  double factor;       // 2^-exponent
  const double* mean;  // [padded_dim], zeros without K mean
};

// Codes go to codes[token][padded_dim], one byte each; scales to the slice's section
// (page_layout.h).
void EncodeTurbo(const CentredHead& head, Codec codec, const HeadGroups& groups, uint8_t* codes,
                 uint8_t* scales);
void EncodeInt(const CentredHead& head, Codec codec, const HeadGroups& groups, uint8_t* codes,
               uint8_t* scales);
void EncodeBlocks(const CentredHead& head, Codec codec, uint8_t* codes, uint8_t* scales);
void EncodeFp8(const CentredHead& head, uint8_t* codes, uint8_t* scales);
// bf16 and fp16.
void EncodeHalves(const CentredHead& head, Codec codec, uint16_t* codes);

// Writes the tiles of the 32-token blocks that hold tokens. codes[token][padded_dim] has whole
// blocks of tokens, zeros behind the last; one byte a code, or two when code_bits is 16.
void PackTiles(Codec codec, TileKind kind, const void* codes, int tokens, int padded_dim,
               uint8_t* tiles);
// The reverse, whole blocks again.
void UnpackTiles(Codec codec, TileKind kind, const uint8_t* tiles, int tokens, int padded_dim,
                 void* codes);

}  // namespace turbokv::cpu
