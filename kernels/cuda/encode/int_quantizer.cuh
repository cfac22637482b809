// intN of rotated values in float, with the largest distance to the nearest code: near one half,
// float arithmetic may have decided otherwise than the reference.
#pragma once

#include "kernels/cuda/primitives/host_device.cuh"

namespace turbokv::cuda {

// share = y * factor + offset is the value's place between minimum (0) and maximum (1).
struct IntScaling {
  float factor;
  float offset;
};

// Raises `farthest` to the largest distance of a value to its code. Returns the codes as a quad of
// bytes (pack.cuh).
TURBOKV_HOST_DEVICE uint32_t QuantizeIntQuad(const float (&y)[4], const IntScaling (&scaling)[4],
                                             float max_code, float (&farthest)[4]) {
  constexpr float kOrigin = 8388608.0f;  // 2^23: the low bits of sums with it are integers
  uint32_t bits[4];
  TURBOKV_UNROLL
  for (int i = 0; i < 4; ++i) {
    const float share = Saturate(MultiplyAdd(y[i], scaling[i].factor, scaling[i].offset));
    const float rounded = MultiplyAdd(share, max_code, kOrigin);
    const float distance = MultiplyAdd(share, max_code, kOrigin - rounded);
    farthest[i] = Larger(farthest[i], Magnitude(distance));
    bits[i] = BitsOf(rounded);
  }
  const uint32_t low = SelectBytes(bits[0], bits[1], 0x0040u);
  const uint32_t high = SelectBytes(bits[2], bits[3], 0x0040u);
  return SelectBytes(low, high, 0x5410u);
}

}  // namespace turbokv::cuda
