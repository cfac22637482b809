// One group of a rotated codec by one warp, in the reference's arithmetic and its order.
//
// Lane l holds channels kPerLane l .. + kPerLane - 1 of the group, kPerLane = channels / 32.
#pragma once

#include "kernels/cuda/encode/exact_math.cuh"
#include "kernels/cuda/encode/params.cuh"
#include "kernels/cuda/encode/transform_passes.cuh"

namespace turbokv::cuda {

// turboN: the scale, and nothing. intN: step and minimum.
struct GroupScales {
  uint16_t first;
  uint16_t second;
};

template <int kPerLane>
TURBOKV_DEVICE bool IsNegative(uint32_t sign_word, int lane, int k) {
  return sign_word >> ((kPerLane * lane + k) & 31) & 1;
}

template <int kPerLane>
TURBOKV_DEVICE void FlipFirstSigns(double (&x)[kPerLane], int lane) {
  const uint32_t signs = FirstSigns(kPerLane * lane / 32);
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) x[k] = IsNegative<kPerLane>(signs, lane, k) ? -x[k] : x[k];
}

// Stages of H from `stride` on, in units of places in x.
template <int kPerLane>
TURBOKV_DEVICE void AddAndSubtract(double (&x)[kPerLane], int first_stride) {
#pragma unroll
  for (int stride = 1; stride < kPerLane; stride *= 2) {
    if (stride < first_stride) continue;
#pragma unroll
    for (int k = 0; k < kPerLane; ++k) {
      if (k & stride) continue;
      const double a = x[k];
      const double b = x[k + stride];
      x[k] = Add(a, b);
      x[k + stride] = Subtract(a, b);
    }
  }
}

// s1, then H over blocks of kPerLane x kLanes channels, unnormalised.
template <int kPerLane, int kLanes>
TURBOKV_DEVICE void TransformSmallBlocks(double (&x)[kPerLane], int lane) {
  FlipFirstSigns<kPerLane>(x, lane);
  AddAndSubtract<kPerLane>(x, 1);
#pragma unroll 1
  for (int stride = 1; stride < kLanes; stride *= 2) {
#pragma unroll
    for (int k = 0; k < kPerLane; ++k) {
      const double other = __shfl_xor_sync(~0u, x[k], stride);
      x[k] = lane & stride ? Subtract(other, x[k]) : Add(x[k], other);
    }
  }
}

// Doubles in shared memory, one a value of the group, of one warp: row i / 8, column i % 8.
struct ScratchRows {
  double* first;
  TURBOKV_DEVICE double& At(int row, int column) const { return first[8 * row + column]; }
};

// Value i is added to partial sum i % 8, in ascending order, then the eight as a tree. Scratch is
// ScratchRows or alike. All lanes add, four the same: sums that commute.
template <int kPerLane, class Scratch>
TURBOKV_DEVICE double SumExactly(const double (&terms)[kPerLane], const Scratch& scratch,
                                 int lane) {
  constexpr int kLanesPerRow = 8 / kPerLane;
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    scratch.At(lane / kLanesPerRow, kPerLane * (lane % kLanesPerRow) + k) = terms[k];
  }
  __syncwarp();
  double sum = 0;
#pragma unroll
  for (int row = 0; row < kPerLane * kWarpLanes / 8; ++row) {
    sum = Add(sum, scratch.At(row, lane % 8));
  }
  __syncwarp();
  sum = Add(sum, __shfl_xor_sync(~0u, sum, 4));
  sum = Add(sum, __shfl_xor_sync(~0u, sum, 2));
  return Add(sum, __shfl_xor_sync(~0u, sum, 1));
}

// s1, then H, unnormalised. A few stages at a time are a lane's own; in between, values are dealt
// anew through scratch.
template <int kPerLane, class Scratch>
TURBOKV_DEVICE void TransformExactly(double (&x)[kPerLane], const Scratch& scratch, int lane) {
  using Passes = TransformPasses<kPerLane>;
  FlipFirstSigns<kPerLane>(x, lane);
  AddAndSubtract<kPerLane>(x, 1);
#pragma unroll
  for (int pass = 1; pass <= Passes::kCount; ++pass) {
#pragma unroll
    for (int k = 0; k < kPerLane; ++k) {
      const int channel = Passes::Channel(pass - 1, lane, k);
      scratch.At(channel / 8, channel % 8) = x[k];
    }
    __syncwarp();
    const int next = pass % Passes::kCount;  // in the end as in the beginning
#pragma unroll
    for (int k = 0; k < kPerLane; ++k) {
      const int channel = Passes::Channel(next, lane, k);
      x[k] = scratch.At(channel / 8, channel % 8);
    }
    __syncwarp();
    if (next != 0) AddAndSubtract<kPerLane>(x, Passes::FirstStride(next));
  }
}

template <int kPerLane>
TURBOKV_DEVICE void FinishRotation(double (&x)[kPerLane], double factor, int lane) {
  const uint32_t signs = SecondSigns(kPerLane * lane / 32);
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    const double y = Multiply(x[k], factor);
    x[k] = IsNegative<kPerLane>(signs, lane, k) ? -y : y;
  }
}

// The code of a rotated value: how many thresholds are not above it.
struct LinearSearch {
  const Codebook& book;
  TURBOKV_DEVICE uint32_t operator()(double value) const {
    uint32_t code = 0;
    for (int i = 0; i < book.thresholds_count; ++i) code += book.thresholds[i] <= value;
    return code;
  }
};

// code_of: LinearSearch or alike.
template <int kPerLane, class CodeOf, class Scratch>
TURBOKV_DEVICE GroupScales EncodeTurboExactly(double (&x)[kPerLane], const Codebook& book,
                                              const CodeOf& code_of, const Scratch& scratch,
                                              int lane, uint32_t (&codes)[kPerLane]) {
  constexpr double kRoot = kPerLane == 2 ? 8.0 : kRoot128;
  double squares[kPerLane];
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) squares[k] = Multiply(x[k], x[k]);
  const double norm = Root(SumExactly<kPerLane>(squares, scratch, lane));
  TransformExactly<kPerLane>(x, scratch, lane);
  const double divisor = norm > kSmallestNormalizableNorm ? Multiply(norm, kRoot) : kRoot;
  FinishRotation<kPerLane>(x, Divide(1.0, divisor), lane);
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    codes[k] = code_of(x[k]);
    squares[k] = book.squares[codes[k]];
  }
  const double centroid_norm = Root(SumExactly<kPerLane>(squares, scratch, lane));
  return {FiniteFp16(Divide(norm, centroid_norm)), 0};
}

// std::minmax_element over the warp: the first of the smallest and the last of the largest values,
// which tells zeros of different sign apart.
template <int kPerLane>
TURBOKV_DEVICE void MinMaxExactly(const double (&x)[kPerLane], double& min, double& max) {
  min = max = x[0];
#pragma unroll
  for (int k = 1; k < kPerLane; ++k) {
    if (x[k] < min) min = x[k];
    if (!(x[k] < max)) max = x[k];
  }
  // Lanes below hold earlier channels.
  for (int stride = 1; stride < kWarpLanes; stride *= 2) {
    const double later_min = __shfl_down_sync(~0u, min, stride);
    const double later_max = __shfl_down_sync(~0u, max, stride);
    if (later_min < min) min = later_min;
    if (!(later_max < max)) max = later_max;
  }
  min = __shfl_sync(~0u, min, 0);
  max = __shfl_sync(~0u, max, 0);
}

template <int kPerLane, class Scratch>
TURBOKV_DEVICE GroupScales EncodeIntExactly(double (&x)[kPerLane], double max_code,
                                            const Scratch& scratch, int lane,
                                            uint32_t (&codes)[kPerLane]) {
  constexpr double kInverseRoot = 1.0 / (kPerLane == 2 ? 8.0 : kRoot128);
  TransformExactly<kPerLane>(x, scratch, lane);
  FinishRotation<kPerLane>(x, kInverseRoot, lane);
  double min, max;
  MinMaxExactly<kPerLane>(x, min, max);
  const uint16_t min_bits = FiniteFp16(min);
  const double stored_min = FloatOfFp16(min_bits);
  const uint16_t step_bits = FiniteFp16(Divide(Subtract(max, stored_min), max_code));
  const double step = FloatOfFp16(step_bits);
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    codes[k] = 0;
    if (step == 0) continue;
    const double code = floor(Add(Divide(Subtract(x[k], stored_min), step), 0.5));
    codes[k] = static_cast<uint32_t>(code < 0 ? 0.0 : code > max_code ? max_code : code);
  }
  return {step_bits, min_bits};
}

}  // namespace turbokv::cuda
