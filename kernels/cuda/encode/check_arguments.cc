#include "kernels/cuda/encode/check_arguments.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/check_stride.h"

namespace turbokv::cuda {
namespace {

constexpr int64_t kAlignmentBytes = 16;

absl::Status CheckPointer(absl::string_view field, const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  if (pointer != nullptr && address % kAlignmentBytes == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " is 0x", absl::Hex(address),
                                                 "; it must be ", kAlignmentBytes,
                                                 "-byte aligned and not null"));
}

absl::Status ValidateSource(const DeviceKvSource& source) {
  if (source.type != ValueType::kBf16 && source.type != ValueType::kFp16 &&
      source.type != ValueType::kFp32) {
    return absl::InvalidArgumentError(absl::StrCat("source.type is ", static_cast<int>(source.type),
                                                   "; it must be 1 (bf16), 2 (fp16) or 3 (fp32)"));
  }
  TURBOKV_RETURN_IF_ERROR(CheckPointer("source.k", source.k));
  TURBOKV_RETURN_IF_ERROR(CheckPointer("source.v", source.v));
  TURBOKV_RETURN_IF_ERROR(CheckStride("source.token_stride", source.token_stride, source.type));
  TURBOKV_RETURN_IF_ERROR(CheckStride("source.head_stride", source.head_stride, source.type));
  if (source.slot_mapping == nullptr) return absl::OkStatus();
  if (source.block_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat("source.block_tokens is ", source.block_tokens,
                                                   "; with a slot_mapping it must be at least 1"));
  }
  return CheckStride("source.block_stride", source.block_stride, source.type);
}

}  // namespace

absl::Status ValidateEncodeArguments(const EncodeArguments& arguments, PageLayout* layout) {
  TURBOKV_RETURN_IF_ERROR(ValidatePagePool(arguments.pool, layout));
  // A block a group of a head: the largest grid.
  const int64_t max_pages =
      std::numeric_limits<int32_t>::max() / (int64_t{kMaxGroups} * layout->shape.kv_heads);
  if (arguments.pages < 0 || arguments.pages > max_pages) {
    return absl::InvalidArgumentError(
        absl::StrCat("pages is ", arguments.pages, "; it must be in 0..", max_pages));
  }
  if (arguments.pages == 0) return absl::OkStatus();
  TURBOKV_RETURN_IF_ERROR(ValidateSource(arguments.source));
  if (arguments.page_ids == nullptr) return absl::InvalidArgumentError("page_ids is null");
  return CheckPointer("workspace", arguments.workspace);
}

}  // namespace turbokv::cuda
