// One number of all values of a warp's lanes, in all lanes. Call by a whole warp.
#pragma once

#include "kernels/cuda/primitives/platform.cuh"

namespace turbokv::cuda {

TURBOKV_DEVICE float WarpMax(float value) {
  for (int step = 1; step < kWarpLanes; step *= 2) {
    value = fmaxf(value, __shfl_xor_sync(~0u, value, step));
  }
  return value;
}
TURBOKV_DEVICE float WarpSum(float value) {
  for (int step = 1; step < kWarpLanes; step *= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

}  // namespace turbokv::cuda
