// What every device header begins with. nvcc and NVRTC compile these headers, NVRTC without any
// system header: it is given a <cstdint> of its own (kernels/cuda/dispatch).
#pragma once

#include <cstdint>

#define TURBOKV_DEVICE __device__ __forceinline__

namespace turbokv::cuda {

inline constexpr int kWarpLanes = 32;

// NVRTC has no <cmath>.
TURBOKV_DEVICE float Infinity() { return __int_as_float(0x7f800000); }

// 16 bytes, as vector loads and stores move them.
struct alignas(16) Words4 {
  uint32_t x, y, z, w;
};
struct alignas(8) Words2 {
  uint32_t x, y;
};

TURBOKV_DEVICE Words4 Load16Bytes(const void* from) { return *static_cast<const Words4*>(from); }

}  // namespace turbokv::cuda
