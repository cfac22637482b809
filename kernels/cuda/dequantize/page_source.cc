#include "kernels/cuda/dequantize/page_source.h"

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "kernels/format/page_header.h"

namespace turbokv::cuda {

static_assert(kHeaderTokensOffset == offsetof(PageHeader, tokens));

PageSource PageSourceOf(const PagePool& pool, const PageLayout& layout, const int32_t* page_ids,
                        bool is_v) {
  const Section& codes = is_v ? layout.v_codes : layout.k_codes;
  const Section& scales = is_v ? layout.v_scales : layout.k_scales;
  const bool has_mean = !is_v && layout.shape.k_mean;
  PageSource source{};
  source.pool = pool.device_base;
  source.page_stride = pool.stride_bytes;
  source.page_ids = page_ids;
  source.heads = layout.shape.kv_heads;
  source.head_dim = layout.shape.head_dim;
  source.slice_bytes = static_cast<int32_t>(layout.slice_bytes);
  source.codes_offset = static_cast<int32_t>(codes.offset_bytes);
  source.scales_offset = static_cast<int32_t>(scales.offset_bytes);
  source.mean_offset = has_mean ? static_cast<int32_t>(layout.k_mean.offset_bytes) : -1;
  source.exponent_offset = static_cast<int32_t>(is_v ? offsetof(PageHeader, v_exponent)
                                                     : offsetof(PageHeader, k_exponent));
  return source;
}

absl::Status CheckAligned(absl::string_view field, const void* pointer) {
  constexpr uintptr_t kAlignmentBytes = 16;
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  if (address % kAlignmentBytes == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      field, " is 0x", absl::Hex(address), "; it must be ", kAlignmentBytes, "-byte aligned"));
}

absl::Status CheckPages(int pages, int64_t max_pages) {
  if (pages >= 0 && pages <= max_pages) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("pages is ", pages, "; it must be in 0..", max_pages));
}

absl::Status CheckNotNull(absl::string_view field, const void* pointer) {
  if (pointer != nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " is null"));
}

}  // namespace turbokv::cuda
