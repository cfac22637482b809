// Values of a KvView, one at a time.
#pragma once

#include <cstring>

#include "kernels/format/small_floats.h"
#include "kernels/kv_view.h"

namespace turbokv::reference {

// Value (token, head, channel) of `data`, which is kv.k or kv.v. Every type converts exactly.
inline double ReadValue(const KvView& kv, const void* data, int token, int head, int channel) {
  const ptrdiff_t index = token * kv.token_stride + head * kv.head_stride + channel;
  const auto* bytes = static_cast<const char*>(data) + index * ptrdiff_t(ValueBytes(kv.type));
  if (kv.type == ValueType::kFp32) {
    float value;
    std::memcpy(&value, bytes, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return kv.type == ValueType::kBf16 ? Bf16ToFloat(bits) : Fp16ToFloat(bits);
}

}  // namespace turbokv::reference
