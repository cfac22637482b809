#include "kernels/cuda/dequantize/dequantize.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/check_stride.h"
#include "kernels/cuda/dequantize/dequantize_kernels.h"
#include "kernels/cuda/dequantize/page_source.h"
#include "kernels/cuda/status.h"
#include "kernels/format/rotation.h"

namespace turbokv::cuda {
namespace {

constexpr int kMaxPagesOfLaunch = 65535;  // the largest grid along z

absl::Status ValidateSink(const DeviceKvSink& sink) {
  if (sink.type != ValueType::kBf16 && sink.type != ValueType::kFp16 &&
      sink.type != ValueType::kFp32) {
    return absl::InvalidArgumentError(absl::StrCat("sink.type is ", static_cast<int>(sink.type),
                                                   "; it must be 1 (bf16), 2 (fp16) or 3 (fp32)"));
  }
  if (sink.k == nullptr && sink.v == nullptr) {
    return absl::InvalidArgumentError("sink.k and sink.v are both null; one of them is needed");
  }
  TURBOKV_RETURN_IF_ERROR(CheckAligned("sink.k", sink.k));
  TURBOKV_RETURN_IF_ERROR(CheckAligned("sink.v", sink.v));
  TURBOKV_RETURN_IF_ERROR(CheckStride("sink.token_stride", sink.token_stride, sink.type));
  TURBOKV_RETURN_IF_ERROR(CheckStride("sink.head_stride", sink.head_stride, sink.type));
  if (sink.slot_mapping == nullptr) return absl::OkStatus();
  if (sink.block_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat("sink.block_tokens is ", sink.block_tokens,
                                                   "; with a slot_mapping it must be at least 1"));
  }
  return CheckStride("sink.block_stride", sink.block_stride, sink.type);
}

DequantizeKernelInfo KernelFor(Codec codec, int head_dim, bool is_v) {
  if (!TraitsOf(codec).rotated) return DequantizeUnrotatedKernel(codec, head_dim, is_v);
  const DequantizeKernelInfo turbo = DequantizeTurboKernel(codec, head_dim, is_v);
  return turbo.function != nullptr ? turbo : DequantizeIntKernel(codec, head_dim, is_v);
}

DequantizeParams ParamsOf(const DequantizeArguments& arguments, const PageLayout& layout,
                          Codec codec, bool is_v) {
  const DeviceKvSink& sink = arguments.sink;
  const auto value_bytes = static_cast<int64_t>(ValueBytes(sink.type));
  DequantizeParams params{};
  params.source = PageSourceOf(arguments.pool, layout, arguments.page_ids, is_v);
  if (TraitsOf(codec).scale_kind == ScaleKind::kGroupFp16) {
    const double scale = CentroidScale(GroupsOf(layout.shape.head_dim).channels[0]);
    const absl::Span<const double> centroids = TurboCentroids(codec);
    for (size_t i = 0; i < centroids.size(); ++i) {
      params.centroids[i] = static_cast<float>(centroids[i] * scale);
    }
  }
  params.values = static_cast<uint8_t*>(is_v ? sink.v : sink.k);
  params.token_stride = sink.token_stride * value_bytes;
  params.head_stride = sink.head_stride * value_bytes;
  params.block_stride = sink.block_stride * value_bytes;
  params.slots = sink.slot_mapping;
  params.block_tokens = sink.block_tokens;
  params.value_type = static_cast<int32_t>(sink.type);
  return params;
}

absl::Status DequantizeTensor(const DequantizeArguments& arguments, const PageLayout& layout,
                              bool is_v, cudaStream_t stream) {
  const Codec codec = is_v ? layout.shape.v_codec : layout.shape.k_codec;
  const DequantizeKernelInfo kernel = KernelFor(codec, layout.shape.head_dim, is_v);
  if (kernel.function == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("codec ", CodecName(codec), " has no dequantizing GPU kernel"));
  }
  DequantizeParams params = ParamsOf(arguments, layout, codec, is_v);
  void* kernel_arguments[] = {&params};
  const int units = layout.shape.head_dim / kernel.unit_channels;
  for (int first = 0; first < arguments.pages; first += kMaxPagesOfLaunch) {
    const int pages = std::min(arguments.pages - first, kMaxPagesOfLaunch);
    params.first_page = first;
    TURBOKV_RETURN_IF_ERROR(
        ToStatus(cudaLaunchKernel(kernel.function, dim3(units, layout.shape.kv_heads, pages),
                                  dim3(kDequantizeBlockThreads), kernel_arguments, 0, stream),
                 "dequantizing pages"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status DequantizePages(const DequantizeArguments& arguments, cudaStream_t stream) {
  PageLayout layout;
  TURBOKV_RETURN_IF_ERROR(ValidatePagePool(arguments.pool, &layout));
  constexpr int64_t kMaxPages =
      std::numeric_limits<int32_t>::max() / kMaxPagesOfLaunch * int64_t{kMaxPagesOfLaunch};
  TURBOKV_RETURN_IF_ERROR(CheckPages(arguments.pages, kMaxPages));
  if (arguments.pages == 0) return absl::OkStatus();
  TURBOKV_RETURN_IF_ERROR(CheckNotNull("page_ids", arguments.page_ids));
  TURBOKV_RETURN_IF_ERROR(ValidateSink(arguments.sink));
  if (arguments.sink.k != nullptr) {
    TURBOKV_RETURN_IF_ERROR(DequantizeTensor(arguments, layout, /*is_v=*/false, stream));
  }
  if (arguments.sink.v != nullptr) {
    TURBOKV_RETURN_IF_ERROR(DequantizeTensor(arguments, layout, /*is_v=*/true, stream));
  }
  return absl::OkStatus();
}

}  // namespace turbokv::cuda
