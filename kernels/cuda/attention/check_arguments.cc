// What may be wrong with the arguments of one call.
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/attention/plan.h"
#include "kernels/cuda/status.h"

namespace turbokv::cuda {
namespace {

absl::Status CheckPointer(absl::string_view field, const void* pointer, size_t alignment) {
  if (pointer == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(field, " is a null pointer"));
  }
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  if (address % alignment != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, " is 0x", absl::Hex(address), ", which is not aligned to ", alignment, " bytes"));
  }
  return absl::OkStatus();
}

absl::Status CheckTail(const DeviceTail& tail) {
  TURBOKV_RETURN_IF_ERROR(CheckPointer("tail.k", tail.k, 16));
  TURBOKV_RETURN_IF_ERROR(CheckPointer("tail.v", tail.v, 16));
  const std::pair<absl::string_view, int64_t> strides[] = {
      {"tail.sequence_stride", tail.sequence_stride},
      {"tail.token_stride", tail.token_stride},
      {"tail.head_stride", tail.head_stride}};
  for (const auto& [field, stride] : strides) {
    constexpr int64_t kUnit = 8;  // values of two bytes
    if (stride % kUnit != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, " ", stride, " is not a multiple of ", kUnit, " values"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPools(const AttentionPlan& plan, const AttentionArguments& arguments) {
  if (arguments.pools == nullptr) return absl::InvalidArgumentError("pools is a null pointer");
  for (size_t i = 0; i < plan.pools.size(); ++i) {
    const absl::Status status = ValidatePagePool(arguments.pools[i], nullptr);
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat("pool ", i, ": ", status.message()));
    }
    if (arguments.pools[i].shape != plan.pools[i].layout.shape) {
      return absl::InvalidArgumentError(
          absl::StrCat("pool ", i, " is not of the shape it was configured with"));
    }
  }
  if (plan.pools.size() > 1 && arguments.page_pools == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("page_pools is a null pointer, and there are ", plan.pools.size(), " pools"));
  }
  return absl::OkStatus();
}

absl::Status CheckNumbers(const AttentionArguments& arguments) {
  if (!std::isfinite(arguments.softmax_scale)) {
    return absl::InvalidArgumentError(
        absl::StrCat("softmax_scale ", arguments.softmax_scale, " is not finite"));
  }
  constexpr float kSmallestCap = 1e-6f;
  constexpr float kLargestCap = 1e9f;
  const float cap = arguments.soft_cap;
  if (cap != 0 && !(cap >= kSmallestCap && cap <= kLargestCap)) {
    return absl::InvalidArgumentError(
        absl::StrCat("soft_cap ", cap, " is not 0 or in ", kSmallestCap, "..", kLargestCap));
  }
  if (arguments.window_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("window_tokens ", arguments.window_tokens, " is negative"));
  }
  const float threshold = arguments.sparse_v_threshold;
  if (!(threshold >= 0) || threshold > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("sparse_v_threshold ", threshold, " is not in 0..1"));
  }
  return absl::OkStatus();
}

template <typename T>
absl::StatusOr<std::vector<T>> Download(const T* device, size_t count, cudaStream_t stream) {
  std::vector<T> values(count);
  TURBOKV_RETURN_IF_ERROR(ToStatus(
      cudaMemcpyAsync(values.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost, stream),
      "cudaMemcpyAsync"));
  TURBOKV_RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream), "cudaStreamSynchronize"));
  return values;
}

absl::Status CheckPages(const AttentionPlan& plan, const AttentionArguments& arguments,
                        int sequence, int pages, const int32_t* ids, const uint8_t* pools) {
  for (int page = 0; page < pages; ++page) {
    const size_t pool = pools == nullptr ? 0 : pools[page];
    if (pool >= plan.pools.size()) {
      return absl::InvalidArgumentError(absl::StrCat("page_pools of sequence ", sequence, ", page ",
                                                     page, " is ", pool, "; there are ",
                                                     plan.pools.size(), " pools"));
    }
    if (ids[page] < 0 || ids[page] >= arguments.pools[pool].page_count) {
      return absl::InvalidArgumentError(absl::StrCat(
          "page id ", ids[page], " of sequence ", sequence, ", page ", page,
          " is out of range; pool ", pool, " has ", arguments.pools[pool].page_count, " pages"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateArguments(const AttentionPlan& plan, const AttentionArguments& arguments) {
  if (arguments.batch < 1 || arguments.batch > plan.config.max_batch) {
    return absl::InvalidArgumentError(
        absl::StrCat("batch ", arguments.batch, " is not in 1..", plan.config.max_batch));
  }
  TURBOKV_RETURN_IF_ERROR(CheckPools(plan, arguments));
  TURBOKV_RETURN_IF_ERROR(CheckPointer("block_tables", arguments.block_tables, 4));
  TURBOKV_RETURN_IF_ERROR(CheckPointer("packed_tokens", arguments.packed_tokens, 4));
  TURBOKV_RETURN_IF_ERROR(CheckPointer("q", arguments.q, 16));
  TURBOKV_RETURN_IF_ERROR(CheckPointer("out", arguments.out, 16));
  TURBOKV_RETURN_IF_ERROR(CheckPointer("workspace", arguments.workspace, 256));
  const std::pair<absl::string_view, const void*> optional_words[] = {
      {"tail_tokens", arguments.tail_tokens},
      {"query_positions", arguments.query_positions},
      {"lse", arguments.lse},
      {"sink_logits", arguments.sink_logits}};
  for (const auto& [field, pointer] : optional_words) {
    if (pointer != nullptr) TURBOKV_RETURN_IF_ERROR(CheckPointer(field, pointer, 4));
  }
  if (arguments.tail_tokens != nullptr) TURBOKV_RETURN_IF_ERROR(CheckTail(arguments.tail));
  return CheckNumbers(arguments);
}

absl::Status CheckTables(const AttentionPlan& plan, const AttentionArguments& arguments,
                         cudaStream_t stream) {
  TURBOKV_RETURN_IF_ERROR(ValidateArguments(plan, arguments));
  const size_t width = plan.config.max_pages;
  const size_t entries = arguments.batch * width;
  TURBOKV_ASSIGN_OR_RETURN(const std::vector<int32_t> packed_tokens,
                           Download(arguments.packed_tokens, arguments.batch, stream));
  TURBOKV_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                           Download(arguments.block_tables, entries, stream));
  std::vector<uint8_t> pools;
  if (arguments.page_pools != nullptr) {
    TURBOKV_ASSIGN_OR_RETURN(pools, Download(arguments.page_pools, entries, stream));
  }
  std::vector<int32_t> tail_tokens(arguments.batch);
  if (arguments.tail_tokens != nullptr) {
    TURBOKV_ASSIGN_OR_RETURN(tail_tokens, Download(arguments.tail_tokens, arguments.batch, stream));
  }
  for (int sequence = 0; sequence < arguments.batch; ++sequence) {
    const int64_t tokens = packed_tokens[sequence];
    if (tokens < 0 || tokens % kPageTokens != 0 || tokens / kPageTokens > int64_t(width)) {
      return absl::InvalidArgumentError(absl::StrCat("packed_tokens of sequence ", sequence, " is ",
                                                     tokens, "; it must be a multiple of ",
                                                     kPageTokens, " in 0..", width * kPageTokens));
    }
    if (tail_tokens[sequence] < 0 || tail_tokens[sequence] > kMaxTailTokens) {
      return absl::InvalidArgumentError(absl::StrCat("tail_tokens of sequence ", sequence, " is ",
                                                     tail_tokens[sequence], ", not in 0..",
                                                     kMaxTailTokens));
    }
    TURBOKV_RETURN_IF_ERROR(CheckPages(
        plan, arguments, sequence, static_cast<int>(tokens / kPageTokens),
        ids.data() + sequence * width, pools.empty() ? nullptr : pools.data() + sequence * width));
  }
  return absl::OkStatus();
}

}  // namespace turbokv::cuda
