#include "kernels/cuda/page_pool.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/primitives/page_format.cuh"

namespace turbokv::cuda {

absl::Status CheckGpuHeadDim(int head_dim) {
  if (SupportedHeadDim(head_dim)) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat("head_dim ", head_dim, " has no GPU kernels; 64, 128 and 256 have"));
}

absl::Status ValidatePagePool(const PagePool& pool, PageLayout* layout) {
  absl::StatusOr<PageLayout> pool_layout = PageLayout::For(pool.shape);
  if (!pool_layout.ok()) return pool_layout.status();
  TURBOKV_RETURN_IF_ERROR(CheckGpuHeadDim(pool.shape.head_dim));
  const auto address = reinterpret_cast<uintptr_t>(pool.device_base);
  if (pool.device_base == nullptr || address % kSectionAlignmentBytes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("device_base of a page pool is 0x", absl::Hex(address), "; it must be ",
                     kSectionAlignmentBytes, "-byte aligned and not null"));
  }
  if (pool.stride_bytes <= 0 || pool.stride_bytes % kSectionAlignmentBytes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("stride_bytes of a page pool is ", pool.stride_bytes,
                     "; it must be a positive multiple of ", kSectionAlignmentBytes));
  }
  if (pool.page_count < 0 || pool.page_count > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("page_count of a page pool is ", pool.page_count, ", not in 0..2^31-1"));
  }
  if (layout != nullptr) *layout = *std::move(pool_layout);
  return absl::OkStatus();
}

}  // namespace turbokv::cuda
