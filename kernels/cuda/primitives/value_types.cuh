// Values in a caller's memory, of a type known at run time (kernels/kv_view.h, ValueType).
#pragma once

#include "kernels/cuda/primitives/platform.cuh"
#include "kernels/cuda/primitives/ptx.cuh"

namespace turbokv::cuda {

// The enumerators of ValueType.
inline constexpr int kTypeBf16 = 1;
inline constexpr int kTypeFp16 = 2;
inline constexpr int kTypeFp32 = 3;

TURBOKV_DEVICE float LoadValue(const void* values, int type, int64_t index) {
  if (type == kTypeFp32) return static_cast<const float*>(values)[index];
  const uint32_t bits = static_cast<const uint16_t*>(values)[index];
  return type == kTypeBf16 ? LowBf16(bits) : LowHalf(bits);
}

TURBOKV_DEVICE void StoreValue(void* values, int type, int64_t index, float value) {
  if (type == kTypeFp32) {
    static_cast<float*>(values)[index] = value;
    return;
  }
  const uint32_t pair = type == kTypeBf16 ? PackBf16(value, 0.0f) : PackHalves(value, 0.0f);
  static_cast<uint16_t*>(values)[index] = static_cast<uint16_t>(pair);
}

}  // namespace turbokv::cuda
