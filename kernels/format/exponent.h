// The power of two that keeps a page's fp16 numbers in range (page_v1.md, "Exponents").
#pragma once

#include <cstdint>

#include "kernels/format/codec.h"

namespace turbokv {

// Exponents of finite float sources lie inside; a page that claims another is refused.
inline constexpr int kMaxPageExponent = 160;

// The exponent of a page's K or V: its vectors are multiplied by 2^-exponent before they are
// encoded.
//   max_squared_norm  the largest sum of squares over tokens, heads and (rotated codecs) groups, of
//                     the values as given, K mean not taken out
//   fp16_source       values come as fp16: codec fp16 then keeps them exactly, with exponent 0
// 0 while the norm is in [2^-12, 2^15), and for codecs whose numbers need no scaling: bf16,
// fp8_e4m3. Otherwise the scaled largest norm is in [1, 2).
int PageExponent(Codec codec, bool fp16_source, double max_squared_norm);

}  // namespace turbokv
