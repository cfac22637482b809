#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/dequantize/dequantize.h"
#include "kernels/cuda/dequantize/dequantize_kernels.h"
#include "kernels/cuda/dequantize/page_source.h"
#include "kernels/cuda/encode/params.cuh"
#include "kernels/cuda/encode/seal.h"
#include "kernels/cuda/encode/slices.h"
#include "kernels/cuda/status.h"
#include "kernels/format/rotation.h"

namespace turbokv::cuda {
namespace {

// The workspace: decoded K, decoded V, each [pages x 128][heads][head_dim] floats, and what
// EncodeSlices needs.
int64_t DecodedValues(int pages, const PageShape& shape) {
  return int64_t{pages} * kPageTokens * shape.kv_heads * shape.head_dim;
}
float* DecodedK(const RecodeArguments& arguments) {
  return static_cast<float*>(arguments.workspace);
}
float* DecodedV(const RecodeArguments& arguments) {
  return DecodedK(arguments) + DecodedValues(arguments.pages, arguments.to.shape);
}
void* EncodeWorkspace(const RecodeArguments& arguments) {
  return DecodedV(arguments) + DecodedValues(arguments.pages, arguments.to.shape);
}

absl::Status CheckSameShape(absl::string_view field, int from, int to) {
  if (from == to) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("from has ", field, " ", from, ", to has ", to, "; they must be equal"));
}

absl::Status Validate(const RecodeArguments& arguments, PageLayout* from) {
  PageLayout to;
  TURBOKV_RETURN_IF_ERROR(ValidatePagePool(arguments.from, from));
  TURBOKV_RETURN_IF_ERROR(ValidatePagePool(arguments.to, &to));
  TURBOKV_RETURN_IF_ERROR(CheckSameShape("kv_heads", from->shape.kv_heads, to.shape.kv_heads));
  TURBOKV_RETURN_IF_ERROR(CheckSameShape("head_dim", from->shape.head_dim, to.shape.head_dim));
  const int64_t max_pages =
      std::numeric_limits<int32_t>::max() / (int64_t{kMaxGroups} * to.shape.kv_heads);
  TURBOKV_RETURN_IF_ERROR(CheckPages(arguments.pages, max_pages));
  if (arguments.pages == 0) return absl::OkStatus();
  TURBOKV_RETURN_IF_ERROR(CheckNotNull("from_page_ids", arguments.from_page_ids));
  TURBOKV_RETURN_IF_ERROR(CheckNotNull("to_page_ids", arguments.to_page_ids));
  TURBOKV_RETURN_IF_ERROR(CheckNotNull("workspace", arguments.workspace));
  return CheckAligned("workspace", arguments.workspace);
}

ExactDecodeParams DecodeParamsOf(const RecodeArguments& arguments, const PageLayout& layout,
                                 bool is_v) {
  ExactDecodeParams params{};
  params.source = PageSourceOf(arguments.from, layout, arguments.from_page_ids, is_v);
  params.codec = is_v ? layout.shape.v_codec : layout.shape.k_codec;
  params.is_v = is_v;
  params.group_channels = GroupsOf(layout.shape.head_dim).channels[0];
  if (TraitsOf(params.codec).scale_kind == ScaleKind::kGroupFp16) {
    const absl::Span<const double> centroids = TurboCentroids(params.codec);
    for (size_t i = 0; i < centroids.size(); ++i) params.centroids[i] = centroids[i];
  }
  params.centroid_scale = CentroidScale(params.group_channels);
  params.inverse_root = 1.0 / std::sqrt(static_cast<double>(params.group_channels));
  params.values = is_v ? DecodedV(arguments) : DecodedK(arguments);
  return params;
}

absl::Status Decode(const RecodeArguments& arguments, const PageLayout& layout,
                    cudaStream_t stream) {
  ExactDecodeParams k = DecodeParamsOf(arguments, layout, /*is_v=*/false);
  ExactDecodeParams v = DecodeParamsOf(arguments, layout, /*is_v=*/true);
  void* kernel_arguments[] = {&k, &v};
  const dim3 grid(arguments.pages * layout.shape.kv_heads, 2, kPageTokens / kTileTokens);
  return ToStatus(cudaLaunchKernel(ExactDecodeKernelFunction(), grid,
                                   dim3(kExactDecodeBlockThreads), kernel_arguments, 0, stream),
                  "decoding pages in double");
}

absl::Status Encode(const RecodeArguments& arguments, cudaStream_t stream) {
  const PageShape& shape = arguments.to.shape;
  EncodeArguments encode;
  encode.pool = arguments.to;
  encode.source.type = ValueType::kFp32;
  encode.source.k = DecodedK(arguments);
  encode.source.v = DecodedV(arguments);
  encode.source.token_stride = int64_t{shape.kv_heads} * shape.head_dim;
  encode.source.head_stride = shape.head_dim;
  encode.pages = arguments.pages;
  encode.page_ids = arguments.to_page_ids;
  encode.workspace = EncodeWorkspace(arguments);
  TURBOKV_RETURN_IF_ERROR(EncodeSlices(encode, stream));

  SealArguments seal;
  seal.pool = arguments.to;
  seal.page_ids = arguments.to_page_ids;
  seal.pages = arguments.pages;
  seal.states = static_cast<const PageState*>(encode.workspace);
  seal.identity.headers = arguments.from.device_base;
  seal.identity.header_stride_bytes = arguments.from.stride_bytes;
  seal.identity.header_ids = arguments.from_page_ids;
  return SealPages(seal, stream);
}

}  // namespace

size_t RecodeWorkspaceBytes(int pages, const PageShape& to) {
  return static_cast<size_t>(DecodedValues(pages, to)) * 2 * sizeof(float) +
         EncodeWorkspaceBytes(pages, to);
}

absl::Status RecodePages(const RecodeArguments& arguments, cudaStream_t stream) {
  PageLayout from;
  TURBOKV_RETURN_IF_ERROR(Validate(arguments, &from));
  if (arguments.pages == 0) return absl::OkStatus();
  TURBOKV_RETURN_IF_ERROR(Decode(arguments, from, stream));
  return Encode(arguments, stream);
}

}  // namespace turbokv::cuda
