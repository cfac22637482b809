// The exponent of a page's K or V, and whether it is finite: in double and from all its values
// where the bounds that faster kernels left in PageState do not settle it.
#pragma once

#include "kernels/cuda/encode/exact_math.cuh"
#include "kernels/cuda/encode/source.cuh"

namespace turbokv::cuda {

inline constexpr int kExamineThreads = 256;

// Whether what is known of the largest norm makes the exponent 0.
TURBOKV_DEVICE bool ExponentIsZero(const PageState& state, int tensor) {
  constexpr float kSmallest = 0x1p-12f;
  constexpr float kTooLarge = 0x1p15f;
  return __uint_as_float(state.norm_below[tensor]) >= kSmallest &&
         __uint_as_float(state.norm_above[tensor]) < kTooLarge;
}

// The largest of squared norms, and whether one of them is not finite.
struct SquaredNorm {
  double largest;
  bool finite;
};

// Of the vectors (groups) that this warp takes. Eight lanes sum one of them, as the reference does:
// lane r has the values i with i % 8 = r.
TURBOKV_DEVICE SquaredNorm LargestSquaredNorm(const TensorParams& params, int page) {
  const bool rotated = FactsOf(params.codec).rotated;
  const int channels = rotated ? GroupChannels(params.head_dim) : params.head_dim;
  const int parts = params.head_dim / channels;
  const int vectors = kPageTokens * params.heads * parts;
  const int r = threadIdx.x % 8;
  SquaredNorm norm{0.0, true};
  for (int first = threadIdx.x / 8; first < vectors; first += kExamineThreads / 8) {
    const int part = first % parts;
    const int head = first / parts % params.heads;
    const int token = first / parts / params.heads;
    const uint8_t* values =
        params.values + TokenOffset(params, page, token) + head * params.head_stride;
    double sum = 0;
    for (int c = part * channels + r; c < (part + 1) * channels; c += 8) {
      const double value = LoadValue(values, params.value_type, c);
      sum = Add(sum, Multiply(value, value));
    }
    sum = Add(sum, __shfl_xor_sync(~0u, sum, 4));
    sum = Add(sum, __shfl_xor_sync(~0u, sum, 2));
    sum = Add(sum, __shfl_xor_sync(~0u, sum, 1));
    if (!(sum < __builtin_huge_val())) norm.finite = false;
    if (sum > norm.largest) norm.largest = sum;
  }
  return norm;
}

TURBOKV_DEVICE int PageExponentOf(const TensorParams& params, double largest) {
  if (params.codec == Codec::kBf16 || params.codec == Codec::kFp8E4m3) return 0;
  if (params.codec == Codec::kFp16 && params.value_type == kTypeFp16) return 0;
  return ExponentOfSquaredNorm(largest);
}

// Grid: (pages, 2): K, then V.
__global__ void __launch_bounds__(kExamineThreads)
    ExamineKernel(const __grid_constant__ TensorParams k, const __grid_constant__ TensorParams v,
                  uint32_t* non_finite_page) {
  const TensorParams& params = blockIdx.y == 0 ? k : v;
  const int page = static_cast<int>(blockIdx.x);
  PageState& state = params.states[page];
  const bool has_slot = threadIdx.x >= kPageTokens || TokenOffset(params, page, threadIdx.x) >= 0;
  if (!__syncthreads_and(has_slot)) {
    if (threadIdx.x == 0) state.skip = 1;
    return;
  }
  if (ExponentIsZero(state, params.is_v)) return;
  const SquaredNorm norm = LargestSquaredNorm(params, page);
  // Doubles that are not negative compare like their bits.
  __shared__ unsigned long long largest_bits;
  if (threadIdx.x == 0) largest_bits = 0;
  const bool finite = __syncthreads_and(norm.finite);
  atomicMax(&largest_bits, static_cast<unsigned long long>(BitsOf(norm.largest)));
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (finite) {
    state.exponent[params.is_v] =
        PageExponentOf(params, __longlong_as_double(static_cast<long long>(largest_bits)));
  } else if (non_finite_page != nullptr) {
    atomicMax(non_finite_page, static_cast<uint32_t>(page) + 1);
  }
}

}  // namespace turbokv::cuda
