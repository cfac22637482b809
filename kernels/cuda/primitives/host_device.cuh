// Arithmetic that both the kernels and their host tests run.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#include "kernels/cuda/primitives/platform.cuh"
#define TURBOKV_HOST_DEVICE TURBOKV_DEVICE
#else
#define TURBOKV_HOST_DEVICE inline
namespace turbokv::cuda {
inline constexpr int kWarpLanes = 32;
}
#endif

// Before a loop. Host compilers do not know the pragma.
#ifdef __CUDA_ARCH__
#define TURBOKV_UNROLL _Pragma("unroll")
#else
#define TURBOKV_UNROLL
#endif

namespace turbokv::cuda {

TURBOKV_HOST_DEVICE uint32_t BitsOf(float value) { return __builtin_bit_cast(uint32_t, value); }
TURBOKV_HOST_DEVICE float FloatOf(uint32_t bits) { return __builtin_bit_cast(float, bits); }
TURBOKV_HOST_DEVICE uint64_t BitsOf(double value) { return __builtin_bit_cast(uint64_t, value); }

// a * b + c, rounded once.
TURBOKV_HOST_DEVICE float MultiplyAdd(float a, float b, float c) {
#ifdef __CUDA_ARCH__
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

// Limited to 0..1; costs nothing on the GPU, where it is part of the instruction before.
TURBOKV_HOST_DEVICE float Saturate(float value) {
#ifdef __CUDA_ARCH__
  return __saturatef(value);
#else
  return value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f;
#endif
}

TURBOKV_HOST_DEVICE float Magnitude(float value) {
#ifdef __CUDA_ARCH__
  return fabsf(value);  // part of the instruction after
#else
  return FloatOf(BitsOf(value) & 0x7fffffffu);
#endif
}

TURBOKV_HOST_DEVICE float Smaller(float a, float b) {
#ifdef __CUDA_ARCH__
  return fminf(a, b);
#else
  return a < b ? a : b;
#endif
}
TURBOKV_HOST_DEVICE float Larger(float a, float b) {
#ifdef __CUDA_ARCH__
  return fmaxf(a, b);
#else
  return a > b ? a : b;
#endif
}

// Byte i of the result is byte (selector nibble i) of the eight bytes b:a; nibbles below 8 only.
TURBOKV_HOST_DEVICE uint32_t SelectBytes(uint32_t a, uint32_t b, uint32_t selector) {
#ifdef __CUDA_ARCH__
  uint32_t selected;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(selected) : "r"(a), "r"(b), "r"(selector));
  return selected;
#else
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t byte = (selector >> (4 * i)) & 7;
    result |= static_cast<uint32_t>((bytes >> (8 * byte)) & 0xff) << (8 * i);
  }
  return result;
#endif
}

// `word` moved up by four bits, with the four highest bits of `value` behind it.
TURBOKV_HOST_DEVICE uint32_t AppendHighNibble(uint32_t word, uint32_t value) {
#ifdef __CUDA_ARCH__
  return __funnelshift_l(value, word, 4);
#else
  return word << 4 | value >> 28;
#endif
}
// `word` moved down by four bits, with the four lowest bits of `value` before it.
TURBOKV_HOST_DEVICE uint32_t AppendLowNibble(uint32_t word, uint32_t value) {
#ifdef __CUDA_ARCH__
  return __funnelshift_r(word, value, 4);
#else
  return word >> 4 | value << 28;
#endif
}

TURBOKV_HOST_DEVICE uint32_t ReverseBits(uint32_t word) {
#ifdef __CUDA_ARCH__
  return __brev(word);
#else
  uint32_t reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (word >> i & 1) << (31 - i);
  return reversed;
#endif
}

TURBOKV_HOST_DEVICE uint32_t CountBits(uint32_t word) {
#ifdef __CUDA_ARCH__
  return static_cast<uint32_t>(__popc(word));
#else
  return static_cast<uint32_t>(__builtin_popcount(word));
#endif
}

// sum + the four bytes of `bytes`.
TURBOKV_HOST_DEVICE uint32_t AddBytes(uint32_t bytes, uint32_t sum) {
#ifdef __CUDA_ARCH__
  return __dp4a(bytes, 0x01010101u, sum);
#else
  return sum + (bytes & 0xff) + (bytes >> 8 & 0xff) + (bytes >> 16 & 0xff) + (bytes >> 24);
#endif
}

}  // namespace turbokv::cuda
