// Scalar fp16 conversions of the encoders' inner loops: the same results as small_floats.h, faster
// for normal numbers.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/format/small_floats.h"

namespace turbokv::cpu {

// As DoubleToFiniteFp16.
inline uint16_t FastDoubleToFiniteFp16(double value) {
  constexpr uint64_t kSmallestNormal = std::bit_cast<uint64_t>(0x1p-14);
  constexpr uint64_t kLargest = std::bit_cast<uint64_t>(65504.0);
  constexpr int kDroppedBits = 52 - 10;
  const uint64_t bits = std::bit_cast<uint64_t>(value);
  const uint64_t magnitude = bits & 0x7fffffffffffffff;
  if (magnitude < kSmallestNormal || magnitude > kLargest) return DoubleToFiniteFp16(value);
  const uint64_t round_to_even =
      ((uint64_t{1} << (kDroppedBits - 1)) - 1) + ((magnitude >> kDroppedBits) & 1);
  const uint64_t rebased = ((magnitude + round_to_even) >> kDroppedBits) - ((1023 - 15) << 10);
  return static_cast<uint16_t>((bits >> 48 & 0x8000) | rebased);
}

// As Fp16ToFloat.
inline float FastFp16ToFloat(uint16_t bits) {
  const uint32_t exponent = (bits >> 10) & 31;
  if (exponent == 0 || exponent == 31) return Fp16ToFloat(bits);
  const uint32_t magnitude = (uint32_t{bits} & 0x7fff) << 13;
  return std::bit_cast<float>((uint32_t{bits} & 0x8000) << 16 | (magnitude + ((127 - 15) << 23)));
}

}  // namespace turbokv::cpu
