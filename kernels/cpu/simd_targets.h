// Which vector instruction sets the CPU kernels are compiled for; include before any Highway
// header.
//
// AVX-512 with VNNI (Ice Lake, Zen 4 and later) and AVX2 on x86, NEON on Arm, and Highway's
// portable target everywhere else. Older AVX-512 machines take AVX2, those without AVX2 the
// portable code: a target more costs every build. The targets whose vectors have no constant size
// are left out since kernels keep arrays of vectors. Builds with sanitizers leave out AVX-512 too.
#pragma once

#define HWY_WANT_AVX3_DL
#define TURBOKV_UNUSED_SIMD_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#ifdef TURBOKV_FEW_SIMD_TARGETS
#define HWY_DISABLED_TARGETS (TURBOKV_UNUSED_SIMD_TARGETS | HWY_AVX3_DL)
#else
#define HWY_DISABLED_TARGETS TURBOKV_UNUSED_SIMD_TARGETS
#endif

// Highway avoids its portable target with GCC < 12.3, whose auto-vectorizer miscompiles it (GCC bug
// 106322). The kernels are compiled without auto-vectorization (CMakeLists.txt), so it is safe.
#define HWY_BROKEN_EMU128 0
