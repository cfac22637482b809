#include "server/device/work_checks.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/primitives/page_format.cuh"

namespace turbokv {
namespace {

constexpr size_t kSourceAlignmentBytes = 16;

uintptr_t AddressOf(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

absl::Status CheckSource(absl::string_view field, const uint8_t* device) {
  if (device != nullptr && AddressOf(device) % kSourceAlignmentBytes == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " is 0x", absl::Hex(AddressOf(device)),
                                                 "; it must be a multiple of ",
                                                 kSourceAlignmentBytes, " and not null"));
}

absl::Status CheckStride(absl::string_view field, int64_t values, ValueType type) {
  const auto value_bytes = static_cast<int64_t>(ValueBytes(type));
  if (values >= 0 && values * value_bytes % int64_t{kSourceAlignmentBytes} == 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", values, " values of ", value_bytes,
                                                 " bytes; its bytes must be a multiple of ",
                                                 kSourceAlignmentBytes));
}

}  // namespace

absl::Status CheckDeviceShape(const PageShape& shape) {
  TURBOKV_RETURN_IF_ERROR(PageLayout::For(shape).status());
  if (cuda::SupportedHeadDim(shape.head_dim)) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat("head_dim ", shape.head_dim, " has no GPU kernels; 64, 128 and 256 have"));
}

absl::Status CheckDevicePages(absl::Span<const uint8_t* const> device_pages, bool may_be_null) {
  for (size_t i = 0; i < device_pages.size(); ++i) {
    if (device_pages[i] == nullptr && may_be_null) continue;
    if (device_pages[i] != nullptr && AddressOf(device_pages[i]) % kSectionAlignmentBytes == 0) {
      continue;
    }
    return absl::InvalidArgumentError(
        absl::StrCat("page ", i, " is at 0x", absl::Hex(AddressOf(device_pages[i])),
                     "; it must be at a multiple of ", kSectionAlignmentBytes));
  }
  return absl::OkStatus();
}

absl::Status CheckDeviceEncode(const DeviceEncode& work) {
  TURBOKV_RETURN_IF_ERROR(CheckDeviceShape(work.layout.shape));
  TURBOKV_RETURN_IF_ERROR(CheckSource("device_k", work.device_k));
  TURBOKV_RETURN_IF_ERROR(CheckSource("device_v", work.device_v));
  TURBOKV_RETURN_IF_ERROR(CheckStride("token_stride", work.token_stride, work.type));
  TURBOKV_RETURN_IF_ERROR(CheckStride("head_stride", work.head_stride, work.type));
  return CheckDevicePages(work.device_pages, /*may_be_null=*/true);
}

absl::Status CheckDeviceCopies(absl::Span<const DeviceCopy> copies) {
  for (size_t i = 0; i < copies.size(); ++i) {
    const DeviceCopy& copy = copies[i];
    if ((AddressOf(copy.from) | AddressOf(copy.to) | copy.bytes) % kCopyAlignmentBytes == 0) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "copy ", i, " of ", copy.bytes, " bytes from 0x", absl::Hex(AddressOf(copy.from)), " to 0x",
        absl::Hex(AddressOf(copy.to)), "; all must be multiples of ", kCopyAlignmentBytes));
  }
  return absl::OkStatus();
}

absl::Status CheckDeviceArenaSizes(size_t budget_bytes, size_t slab_bytes,
                                   size_t granularity_bytes) {
  if (slab_bytes == 0 || slab_bytes % granularity_bytes != 0) {
    return absl::InvalidArgumentError(absl::StrCat("slab size of ", slab_bytes,
                                                   " bytes: must be a positive multiple of ",
                                                   granularity_bytes, " on this device"));
  }
  if (budget_bytes < slab_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("slab size of ", slab_bytes,
                                                   " bytes: more than the GPU memory budget of ",
                                                   budget_bytes, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace turbokv
