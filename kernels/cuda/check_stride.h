// Strides of K/V in a caller's memory, as encoding and dequantizing take them.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/kv_view.h"

namespace turbokv::cuda {

// INVALID_ARGUMENT names `field` unless `values` values of `type` are a multiple of 16 bytes, not
// negative, and few enough for offsets to be 64-bit numbers of bytes.
inline absl::Status CheckStride(absl::string_view field, int64_t values, ValueType type) {
  constexpr int64_t kAlignmentBytes = 16;
  constexpr int64_t kLargestStride = int64_t{1} << 48;
  const auto value_bytes = static_cast<int64_t>(ValueBytes(type));
  if (values >= 0 && values <= kLargestStride && values * value_bytes % kAlignmentBytes == 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      field, " is ", values, " values of ", value_bytes, " bytes; its bytes must be a multiple of ",
      kAlignmentBytes, " and not negative, the values at most 2^48"));
}

}  // namespace turbokv::cuda
