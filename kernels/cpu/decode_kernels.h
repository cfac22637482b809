// The steps of decoding one head's K or V. Internal to kernels/cpu.
//
//   tiles -> UnpackTiles -> codes -> CodesToFloats -> unscaled -> ScaleAndUnrotate -> values
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/format/codec.h"

namespace turbokv::cpu {

// What each of `count` codes (one byte, or two when code_bits is 16) stands for before scales:
// a centroid, an integer, or a number. `count` is a multiple of 32.
void CodesToFloats(Codec codec, const void* codes, size_t count, float* values);

// Multiplies values[tokens][padded_dim] by the scales of a slice's section (page_layout.h) and
// undoes the rotation, in place.
void ScaleAndUnrotate(Codec codec, const uint8_t* scales, int tokens, int head_dim, int padded_dim,
                      float* values);

// out[c] = values[c] + mean[c], kept finite. head_dim is a multiple of 16.
void AddMean(const float* values, const float* mean, int head_dim, float* out);

}  // namespace turbokv::cpu
