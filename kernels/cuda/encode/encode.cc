#include "kernels/cuda/encode/encode.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/encode/check_arguments.h"
#include "kernels/cuda/encode/exact_kernels.h"
#include "kernels/cuda/encode/params.cuh"
#include "kernels/cuda/encode/rotated_kernels.h"
#include "kernels/cuda/encode/seal.h"
#include "kernels/cuda/encode/slices.h"
#include "kernels/cuda/status.h"

namespace turbokv::cuda {
namespace {

TensorParams ParamsOf(const EncodeArguments& arguments, const PageLayout& layout, bool is_v) {
  const DeviceKvSource& source = arguments.source;
  const auto value_bytes = static_cast<int64_t>(ValueBytes(source.type));
  TensorParams params{};
  params.values = static_cast<const uint8_t*>(is_v ? source.v : source.k);
  params.token_stride = source.token_stride * value_bytes;
  params.head_stride = source.head_stride * value_bytes;
  params.block_stride = source.block_stride * value_bytes;
  params.slots = source.slot_mapping;
  params.block_tokens = source.block_tokens;
  params.value_type = static_cast<int32_t>(source.type);
  params.pool = arguments.pool.device_base;
  params.page_stride = arguments.pool.stride_bytes;
  params.page_ids = arguments.page_ids;
  params.states = static_cast<PageState*>(arguments.workspace);
  params.pages = arguments.pages;
  params.heads = layout.shape.kv_heads;
  params.head_dim = layout.shape.head_dim;
  params.slice_bytes = static_cast<int32_t>(layout.slice_bytes);
  const Section& scales = is_v ? layout.v_scales : layout.k_scales;
  params.codes_offset = static_cast<int32_t>((is_v ? layout.v_codes : layout.k_codes).offset_bytes);
  params.scales_offset = static_cast<int32_t>(scales.offset_bytes);
  params.scales_end =
      static_cast<int32_t>((scales.offset_bytes + scales.size_bytes + kSectionAlignmentBytes - 1) /
                           kSectionAlignmentBytes * kSectionAlignmentBytes);
  params.mean_offset =
      !is_v && layout.shape.k_mean ? static_cast<int32_t>(layout.k_mean.offset_bytes) : -1;
  params.codec = is_v ? layout.shape.v_codec : layout.shape.k_codec;
  params.is_v = is_v;
  if (TraitsOf(params.codec).scale_kind == ScaleKind::kGroupFp16) {
    params.codebook = CodebookOf(params.codec, GroupsOf(params.head_dim).channels[0]);
  }
  return params;
}

RotatedKernel KernelFor(const TensorParams& params) {
  if (params.value_type == static_cast<int32_t>(ValueType::kFp32)) return {};
  const RotatedCase wanted{GroupsOf(params.head_dim).channels[0], params.is_v,
                           params.value_type == static_cast<int32_t>(ValueType::kBf16)};
  const RotatedKernel turbo = TurboKernel(params.codec, wanted);
  return turbo.function != nullptr ? turbo : IntKernel(params.codec, wanted);
}

// Launches the kernel for rotated codecs, if the tensor's codec and type have one.
absl::Status EncodeRotated(TensorParams& params, cudaStream_t stream) {
  const RotatedKernel kernel = KernelFor(params);
  if (kernel.function == nullptr) return absl::OkStatus();
  params.encoded_with_zero_exponent = true;
  TURBOKV_RETURN_IF_ERROR(
      ToStatus(cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(kernel.shared_bytes)),
               "shared memory of the encoding kernel"));
  const int blocks = params.pages * params.heads * GroupsOf(params.head_dim).count;
  void* kernel_arguments[] = {&params};
  return ToStatus(cudaLaunchKernel(kernel.function, dim3(blocks), dim3(kEncodeBlockThreads),
                                   kernel_arguments, kernel.shared_bytes, stream),
                  "encoding rotated groups");
}

}  // namespace

size_t EncodeWorkspaceBytes(int pages, const PageShape&) {
  return static_cast<size_t>(pages) * sizeof(PageState);
}

absl::Status EncodeSlices(const EncodeArguments& arguments, cudaStream_t stream) {
  PageLayout layout;
  TURBOKV_RETURN_IF_ERROR(ValidateEncodeArguments(arguments, &layout));
  if (arguments.pages == 0) return absl::OkStatus();
  TURBOKV_RETURN_IF_ERROR(
      ToStatus(cudaMemsetAsync(arguments.workspace, 0,
                               EncodeWorkspaceBytes(arguments.pages, layout.shape), stream),
               "clearing the workspace"));
  TensorParams k = ParamsOf(arguments, layout, /*is_v=*/false);
  TensorParams v = ParamsOf(arguments, layout, /*is_v=*/true);
  TURBOKV_RETURN_IF_ERROR(EncodeRotated(k, stream));
  TURBOKV_RETURN_IF_ERROR(EncodeRotated(v, stream));
  uint32_t* non_finite_page = arguments.non_finite_page;
  void* examine_arguments[] = {&k, &v, &non_finite_page};
  TURBOKV_RETURN_IF_ERROR(
      ToStatus(cudaLaunchKernel(ExamineKernelFunction(), dim3(arguments.pages, 2),
                                dim3(kExamineBlockThreads), examine_arguments, 0, stream),
               "examining pages"));
  void* exact_arguments[] = {&k, &v};
  const int exact_blocks = std::min(arguments.pages * k.heads, kMaxExactBlocks);
  return ToStatus(cudaLaunchKernel(ExactKernelFunction(), dim3(exact_blocks, 2),
                                   dim3(kExactBlockThreads), exact_arguments, 0, stream),
                  "encoding in double");
}

absl::Status EncodePages(const EncodeArguments& arguments, cudaStream_t stream) {
  TURBOKV_RETURN_IF_ERROR(EncodeSlices(arguments, stream));
  SealArguments seal;
  seal.pool = arguments.pool;
  seal.page_ids = arguments.page_ids;
  seal.pages = arguments.pages;
  seal.states = static_cast<const PageState*>(arguments.workspace);
  seal.identity.layer = arguments.layer;
  seal.identity.generation = arguments.generation;
  seal.identity.spec_id = arguments.spec_id;
  seal.identity.first_token = arguments.first_token;
  return SealPages(seal, stream);
}

}  // namespace turbokv::cuda
