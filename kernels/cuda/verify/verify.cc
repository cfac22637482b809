#include "kernels/cuda/verify/verify.h"

#include <cstddef>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/verify/expected_header.h"
#include "kernels/cuda/verify/verify_kernel.h"
#include "kernels/format/page_header.h"

namespace turbokv::cuda {

ExpectedHeader ExpectedHeaderOf(const PageLayout& layout) {
  PageHeader header;
  header.page_bytes = static_cast<uint32_t>(layout.page_bytes);
  header.k_codec = static_cast<uint8_t>(layout.shape.k_codec);
  header.v_codec = static_cast<uint8_t>(layout.shape.v_codec);
  header.flags = layout.shape.k_mean ? kPageHasKMean : 0;
  header.kv_heads = static_cast<uint16_t>(layout.shape.kv_heads);
  header.head_dim = static_cast<uint16_t>(layout.shape.head_dim);
  ExpectedHeader expected;
  static_assert(offsetof(PageHeader, k_exponent) + sizeof(header.k_exponent) == 4 * kExpectedWords);
  std::memcpy(expected.words, &header, sizeof(expected.words));
  std::memset(expected.masks, 0xff, sizeof(expected.masks));
  auto* const masks = reinterpret_cast<uint8_t*>(expected.masks);
  std::memset(masks + offsetof(PageHeader, checksum), 0, sizeof(header.checksum));
  std::memset(masks + offsetof(PageHeader, tokens), 0, sizeof(header.tokens));
  std::memset(masks + offsetof(PageHeader, k_exponent), 0, sizeof(header.k_exponent));
  return expected;
}

absl::Status VerifyPages(const VerifyArguments& arguments, cudaStream_t stream) {
  PageLayout layout;
  TURBOKV_RETURN_IF_ERROR(ValidatePagePool(arguments.pool, &layout));
  if (arguments.pages < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("pages is ", arguments.pages, "; it must not be negative"));
  }
  if (arguments.pages == 0) return absl::OkStatus();
  if (arguments.page_ids == nullptr) return absl::InvalidArgumentError("page_ids is null");
  if (arguments.bad_page == nullptr) return absl::InvalidArgumentError("bad_page is null");
  VerifyParams params{};
  params.pool = arguments.pool.device_base;
  params.page_stride = arguments.pool.stride_bytes;
  params.page_ids = arguments.page_ids;
  params.crc = MakeCrcPlan(static_cast<int64_t>(layout.page_bytes));
  params.header = ExpectedHeaderOf(layout);
  params.bad_page = arguments.bad_page;
  void* kernel_arguments[] = {&params};
  return ToStatus(cudaLaunchKernel(VerifyKernelFunction(), dim3(arguments.pages),
                                   dim3(kVerifyBlockThreads), kernel_arguments, 0, stream),
                  "verifying pages");
}

}  // namespace turbokv::cuda
