#include "kernels/format/exponent.h"

#include <cmath>

namespace turbokv {

int PageExponent(Codec codec, bool fp16_source, double max_squared_norm) {
  if (codec == Codec::kBf16 || codec == Codec::kFp8E4m3) return 0;
  if (codec == Codec::kFp16 && fp16_source) return 0;
  constexpr double kSmallest = 0x1p-24;  // of norms 2^-12
  constexpr double kTooLarge = 0x1p30;   // of norms 2^15
  if (max_squared_norm == 0) return 0;
  if (max_squared_norm >= kSmallest && max_squared_norm < kTooLarge) return 0;
  return std::ilogb(max_squared_norm) >> 1;  // floor(log2(norm)): the shift rounds down
}

}  // namespace turbokv
