// One vector at a time: what codec.cc does to every token of every head.
#pragma once

#include "absl/types/span.h"
#include "kernels/format/head_groups.h"
#include "kernels/format/tensor_sections.h"

namespace turbokv::reference {

// Encodes one token's vector of sections.padded_dim values, K mean and exponent taken out, zeros
// where the head is padded. `groups` are of the head; unused by unrotated codecs. Codes and scales
// of this token must be zero before. Not for fp8_e4m3, whose scale is the head's.
void EncodeVector(const TensorSections<uint8_t>& sections, const HeadGroups& groups, int token,
                  absl::Span<const double> vector);

// fp8_e4m3: the scale of a head's values, and one token's codes.
float Fp8Scale(float largest_magnitude);
void EncodeFp8Vector(const TensorSections<uint8_t>& sections, int token, float scale,
                     absl::Span<const double> vector);

// The reverse of both, rotation undone.
void DecodeVector(const TensorSections<const uint8_t>& sections, const HeadGroups& groups,
                  int token, absl::Span<double> vector);

}  // namespace turbokv::reference
