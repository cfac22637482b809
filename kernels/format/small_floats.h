// Conversions between double/float and bf16, fp16 and fp8 e4m3 bit patterns, round to nearest even.
// Exact and portable; the SIMD kernels have their own and are compared with these.
#pragma once

#include <cstdint>

namespace turbokv {

float Bf16ToFloat(uint16_t bits);
uint16_t FloatToBf16(float value);

float Fp16ToFloat(uint16_t bits);
// From double in one rounding (going through float would round twice). Overflow gives infinity.
uint16_t DoubleToFp16(double value);
inline uint16_t FloatToFp16(float value) { return DoubleToFp16(value); }

// As stored in pages: finite values that would round to infinity become the largest finite number.
// Precondition: `value` is not a NaN.
uint16_t DoubleToFiniteFp16(double value);
uint16_t FloatToFiniteBf16(float value);

// e4m3fn: no infinity, largest finite value 448; magnitudes above 448 become 448.
float Fp8E4m3ToFloat(uint8_t bits);
uint8_t FloatToFp8E4m3(float value);

}  // namespace turbokv
