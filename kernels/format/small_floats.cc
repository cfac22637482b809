#include "kernels/format/small_floats.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace turbokv {
namespace {

// Binary formats of 1 sign bit, an exponent field and `mantissa_bits`.
struct SmallFormat {
  int mantissa_bits;
  int min_exponent;  // of normal numbers
};
constexpr SmallFormat kFp16{10, -14};
constexpr SmallFormat kE4m3{3, -6};

// The bits, sign apart, of finite |value| rounded to nearest even, as if the exponent field had no
// upper limit: rounding up to the next power of two carries into it by itself.
uint32_t RoundMagnitude(double value, SmallFormat format) {
  if (value == 0) return 0;
  const int exponent = std::max(std::ilogb(value), format.min_exponent);
  const double units = std::nearbyint(std::ldexp(std::abs(value), format.mantissa_bits - exponent));
  return (static_cast<uint32_t>(exponent - format.min_exponent) << format.mantissa_bits) +
         static_cast<uint32_t>(units);
}

double MagnitudeToDouble(uint32_t bits, SmallFormat format) {
  const uint32_t field = bits >> format.mantissa_bits;
  uint32_t units = bits & ((1u << format.mantissa_bits) - 1);
  if (field != 0) units += 1u << format.mantissa_bits;
  const int exponent = format.min_exponent + (field == 0 ? 0 : static_cast<int>(field) - 1);
  return std::ldexp(units, exponent - format.mantissa_bits);
}

}  // namespace

float Bf16ToFloat(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40);  // stay a NaN, quiet
  const uint32_t round_to_even = 0x7fff + ((bits >> 16) & 1);
  return static_cast<uint16_t>((bits + round_to_even) >> 16);
}

float Fp16ToFloat(uint16_t bits) {
  const uint32_t magnitude = bits & 0x7fff;
  const float sign = bits & 0x8000 ? -1.0f : 1.0f;
  if (magnitude > 0x7c00) return std::numeric_limits<float>::quiet_NaN();
  if (magnitude == 0x7c00) return sign * std::numeric_limits<float>::infinity();
  return sign * static_cast<float>(MagnitudeToDouble(magnitude, kFp16));
}

uint16_t DoubleToFp16(double value) {
  const uint32_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7e00);
  constexpr double kRoundsToInfinity = 65520.0;
  if (std::abs(value) >= kRoundsToInfinity) return static_cast<uint16_t>(sign | 0x7c00);
  return static_cast<uint16_t>(sign | RoundMagnitude(value, kFp16));
}

uint16_t DoubleToFiniteFp16(double value) {
  constexpr double kLargest = 65504.0;
  return DoubleToFp16(std::clamp(value, -kLargest, kLargest));
}

uint16_t FloatToFiniteBf16(float value) {
  const uint16_t bits = FloatToBf16(value);
  const bool is_infinite = (bits & 0x7fff) == 0x7f80;
  return is_infinite ? bits - 1 : bits;
}

float Fp8E4m3ToFloat(uint8_t bits) {
  const uint32_t magnitude = bits & 0x7f;
  if (magnitude == 0x7f) return std::numeric_limits<float>::quiet_NaN();
  const float sign = bits & 0x80 ? -1.0f : 1.0f;
  return sign * static_cast<float>(MagnitudeToDouble(magnitude, kE4m3));
}

uint8_t FloatToFp8E4m3(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (std::isnan(value)) return sign | 0x7f;
  const double magnitude = std::min(std::abs(double{value}), 448.0);
  return static_cast<uint8_t>(sign | RoundMagnitude(magnitude, kE4m3));
}

}  // namespace turbokv
