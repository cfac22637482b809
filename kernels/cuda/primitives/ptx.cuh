// The PTX instructions that kernels use, one function each.
#pragma once

#include "kernels/cuda/primitives/platform.cuh"

namespace turbokv::cuda {

TURBOKV_DEVICE uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// --- Bits ---------------------------------------------------------------------------------------

// Byte i of the result is byte (selector nibble i) of the eight bytes b:a. Selector nibbles with
// bit 3 set replicate the sign of that byte. (__byte_perm would mask the selector first.)
TURBOKV_DEVICE uint32_t Permute(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t result;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(selector));
  return result;
}

// (x & mask) | y in one instruction.
TURBOKV_DEVICE uint32_t AndOr(uint32_t x, uint32_t mask, uint32_t y) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(x), "r"(mask), "r"(y));
  return result;
}

// --- Numbers ------------------------------------------------------------------------------------

TURBOKV_DEVICE float Exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

TURBOKV_DEVICE float Reciprocal(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// x * 2^exponent for any exponent that a page may have.
TURBOKV_DEVICE float ScaleByPower(float x, int exponent) {
  const int half = exponent / 2;
  return x * __int_as_float((127 + half) << 23) * __int_as_float((127 + exponent - half) << 23);
}

// The two fp16 (or bf16) halves of a word, low one first.
TURBOKV_DEVICE float LowHalf(uint32_t pair) {
  float result;
  asm("{.reg .f16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low;}"
      : "=f"(result)
      : "r"(pair));
  return result;
}
TURBOKV_DEVICE float HighHalf(uint32_t pair) {
  float result;
  asm("{.reg .f16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, high;}"
      : "=f"(result)
      : "r"(pair));
  return result;
}
TURBOKV_DEVICE float LowBf16(uint32_t pair) { return __uint_as_float(pair << 16); }
TURBOKV_DEVICE float HighBf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// The larger of two pairs of fp16, each half for itself.
TURBOKV_DEVICE uint32_t MaxHalves(uint32_t a, uint32_t b) {
  uint32_t result;
  asm("max.f16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
  return result;
}

// Two floats as fp16 or bf16, `low` in the low half, to nearest even.
TURBOKV_DEVICE uint32_t PackHalves(float low, float high) {
  uint32_t result;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
}
TURBOKV_DEVICE uint32_t PackBf16(float low, float high) {
  uint32_t result;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
}

// Two e4m3 in the low 16 bits as fp16, exactly. Nothing stored is a NaN.
TURBOKV_DEVICE uint32_t Fp8PairToHalves(uint32_t pair) {
#if __CUDA_ARCH__ >= 890
  uint32_t result;
  asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.rn.f16x2.e4m3x2 %0, low;}"
      : "=r"(result)
      : "r"(pair));
  return result;
#else
  // Exponent and mantissa sit one bit to the right of where fp16 has them, with a bias of 7 instead
  // of 15: multiply by 2^8, which is exact.
  const uint32_t spread = Permute(pair, 0, 0x1404);  // each byte on top of its half
  const uint32_t bits = AndOr(spread >> 1, 0x3f803f80u, spread & 0x80008000u);
  uint32_t result;
  asm("mul.f16x2 %0, %1, %2;" : "=r"(result) : "r"(bits), "r"(0x5c005c00u));
  return result;
#endif
}

// --- Tensor cores -------------------------------------------------------------------------------

// accumulator += A (16 x 32, row) x B (32 x 8, column). Rows g and g + 8 of A hold the high and the
// low byte of row g's 16-bit numbers; B is the tile's code words.
template <bool kSignedA, bool kSignedB>
TURBOKV_DEVICE void MultiplyInt8(int (&c)[4], const Words4& a, uint32_t b0, uint32_t b1) {
#define TURBOKV_MMA_INT8(A_TYPE, B_TYPE)                         \
  asm("mma.sync.aligned.m16n8k32.row.col.s32." A_TYPE "." B_TYPE \
      ".s32 {%0, %1, %2, %3}, "                                  \
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"            \
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])           \
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1))
  if constexpr (kSignedA && kSignedB) {
    TURBOKV_MMA_INT8("s8", "s8");
  } else if constexpr (kSignedA) {
    TURBOKV_MMA_INT8("s8", "u8");
  } else if constexpr (kSignedB) {
    TURBOKV_MMA_INT8("u8", "s8");
  } else {
    TURBOKV_MMA_INT8("u8", "u8");
  }
#undef TURBOKV_MMA_INT8
}

// The same with A (16 x 16) and B (16 x 8) in fp16 or bf16.
template <bool kBf16>
TURBOKV_DEVICE void MultiplyHalf(float (&c)[4], const Words4& a, uint32_t b0, uint32_t b1) {
  if constexpr (kBf16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
  }
}

// --- Memory -------------------------------------------------------------------------------------

// Begins to read a line of global memory into the L2 cache.
TURBOKV_DEVICE void PrefetchLine(const void* from) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(from)));
}

// --- Between thread blocks ----------------------------------------------------------------------

// Adds 1 to a counter that the grid's threads share and returns what it was. Who sees the sum also
// sees what this thread wrote before, and had seen of others.
TURBOKV_DEVICE int CountArrival(int* counter) {
  int before;
  asm volatile("atom.acq_rel.gpu.add.s32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
  return before;
}

// --- Programmatic dependent launch --------------------------------------------------------------

// Waits until the kernels before this one in the stream have written their results.
TURBOKV_DEVICE void WaitForEarlierKernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel in the stream may start to launch.
TURBOKV_DEVICE void LetNextKernelLaunch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

}  // namespace turbokv::cuda
