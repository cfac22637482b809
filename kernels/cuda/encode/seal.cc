#include "kernels/cuda/encode/seal.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/encode/seal_kernel.h"
#include "kernels/cuda/encode/seal_params.cuh"
#include "kernels/cuda/status.h"
#include "kernels/format/page_header.h"

namespace turbokv::cuda {
namespace {

// Everything but exponents and what a page's index decides.
PageHeader HeaderOf(const PageLayout& layout, const SealIdentity& identity) {
  PageHeader header;
  header.page_bytes = static_cast<uint32_t>(layout.page_bytes);
  header.k_codec = static_cast<uint8_t>(layout.shape.k_codec);
  header.v_codec = static_cast<uint8_t>(layout.shape.v_codec);
  header.flags = layout.shape.k_mean ? kPageHasKMean : 0;
  header.tokens = kPageTokens;
  header.kv_heads = static_cast<uint16_t>(layout.shape.kv_heads);
  header.head_dim = static_cast<uint16_t>(layout.shape.head_dim);
  header.layer = identity.layer;
  header.generation = identity.generation;
  header.spec_id = identity.spec_id;
  return header;
}

absl::Status Validate(const SealArguments& arguments) {
  if (arguments.pages < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("pages is ", arguments.pages, "; it must not be negative"));
  }
  if (arguments.pages == 0) return absl::OkStatus();
  if (arguments.page_ids == nullptr) return absl::InvalidArgumentError("page_ids is null");
  if (arguments.states == nullptr) return absl::InvalidArgumentError("states is null");
  const SealIdentity& identity = arguments.identity;
  if (identity.headers != nullptr && identity.header_ids == nullptr) {
    return absl::InvalidArgumentError("identity.header_ids is null, but headers is not");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SealPages(const SealArguments& arguments, cudaStream_t stream) {
  PageLayout layout;
  TURBOKV_RETURN_IF_ERROR(ValidatePagePool(arguments.pool, &layout));
  TURBOKV_RETURN_IF_ERROR(Validate(arguments));
  if (arguments.pages == 0) return absl::OkStatus();
  const SealIdentity& identity = arguments.identity;
  SealParams params{};
  params.pool = arguments.pool.device_base;
  params.page_stride = arguments.pool.stride_bytes;
  params.page_ids = arguments.page_ids;
  params.states = arguments.states;
  params.crc = MakeCrcPlan(static_cast<int64_t>(layout.page_bytes));
  const PageHeader header = HeaderOf(layout, identity);
  static_assert(sizeof(params.header) == sizeof(header));
  std::memcpy(params.header, &header, sizeof(header));
  params.first_token = identity.first_token;
  params.from_headers = identity.headers;
  params.from_stride = identity.header_stride_bytes;
  params.from_ids = identity.header_ids;
  void* kernel_arguments[] = {&params};
  return ToStatus(cudaLaunchKernel(SealKernelFunction(), dim3(arguments.pages),
                                   dim3(kSealBlockThreads), kernel_arguments, 0, stream),
                  "sealing pages");
}

}  // namespace turbokv::cuda
