// The reference's double arithmetic: every operation rounded, nothing fused.
#pragma once

#include "kernels/cuda/primitives/host_device.cuh"

namespace turbokv::cuda {

#ifdef __CUDACC__
TURBOKV_DEVICE double Add(double a, double b) { return __dadd_rn(a, b); }
TURBOKV_DEVICE double Subtract(double a, double b) { return __dsub_rn(a, b); }
TURBOKV_DEVICE double Multiply(double a, double b) { return __dmul_rn(a, b); }
TURBOKV_DEVICE double Divide(double a, double b) { return __ddiv_rn(a, b); }
TURBOKV_DEVICE double Root(double a) { return __dsqrt_rn(a); }

// Rounded once, finite values staying finite.
TURBOKV_DEVICE uint16_t FiniteFp16(double value) {
  constexpr double kLargest = 65504.0;
  const double limited = value > kLargest ? kLargest : value < -kLargest ? -kLargest : value;
  uint16_t bits;
  asm("{.reg .f16 half; cvt.rn.f16.f64 half, %1; mov.b16 %0, half;}" : "=h"(bits) : "d"(limited));
  return bits;
}
TURBOKV_DEVICE float FloatOfFp16(uint16_t bits) {
  float value;
  asm("{.reg .f16 half; mov.b16 half, %1; cvt.f32.f16 %0, half;}" : "=f"(value) : "h"(bits));
  return value;
}

#endif

// 2^exponent for exponents of normal doubles.
TURBOKV_HOST_DEVICE double PowerOfTwo(int exponent) {
  return __builtin_bit_cast(double, static_cast<uint64_t>(1023 + exponent) << 52);
}

// The upper word of the double that is 2^-896 times a bf16 number, exactly; the lower one is 0:
// with its exponent in the wider field as it is, a number, subnormal or not, just has another bias.
// Sums of such doubles are the scaled sums of the numbers: where the one rounds, so does the other,
// and in the doubles' subnormal range, whose unit 2^-1074 divides all terms (multiples of 2^-133
// before scaling), neither does. Infinities and NaNs become finite; pages that hold them are
// reported by their norms.
TURBOKV_HOST_DEVICE int32_t ScaledDoubleOfBf16(int32_t sign_extended_bits) {
  return sign_extended_bits << 13 & static_cast<int32_t>(0x8fffffffu);
}
inline constexpr double kScaledDoubleUnit = 0x1p896;

// kernels/format/exponent.h, for codecs whose numbers are fp16.
TURBOKV_HOST_DEVICE int ExponentOfSquaredNorm(double max_squared_norm) {
  if (max_squared_norm == 0) return 0;
  if (max_squared_norm >= 0x1p-24 && max_squared_norm < 0x1p30) return 0;
  // Squares of floats are normal doubles.
  return (static_cast<int>(BitsOf(max_squared_norm) >> 52) - 1023) >> 1;
}

// float to bf16, to nearest even, finite values staying finite. Not for NaNs.
TURBOKV_HOST_DEVICE uint16_t FiniteBf16(float value) {
  const uint32_t bits = BitsOf(value);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>((rounded & 0x7fff) == 0x7f80 ? rounded - 1 : rounded);
}

// float to e4m3, to nearest even, magnitudes above 448 becoming 448. Not for NaNs.
TURBOKV_HOST_DEVICE uint8_t Fp8OfFloat(float value) {
  const uint32_t bits = BitsOf(value);
  const auto sign = static_cast<uint8_t>(bits >> 24 & 0x80);
  const float magnitude = FloatOf(bits & 0x7fffffffu);
  if (magnitude >= 448.0f) return sign | 0x7e;
  // Below 2^-6, a unit is 2^-9: adding 1.5 x 2^14 leaves whole units in the mantissa.
  if (magnitude < 0x1p-6f) return sign | static_cast<uint8_t>(BitsOf(magnitude + 0x1.8p14f) & 15);
  const uint32_t magnitude_bits = bits & 0x7fffffffu;
  const uint32_t rounded = magnitude_bits + 0x7ffff + (magnitude_bits >> 20 & 1);
  return sign | static_cast<uint8_t>((rounded >> 20) - ((127 - 7) << 3));
}

}  // namespace turbokv::cuda
