#include "kernels/cuda/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/attention/plan.h"
#include "kernels/cuda/status.h"

namespace turbokv::cuda {
namespace {

constexpr float kLog2E = 1.4426950408889634f;
constexpr int kWarpThreads = 32;

// One call: parameters of every kernel, and their launches.
class AttentionCall {
 public:
  AttentionCall(const AttentionPlan& plan, const AttentionArguments& arguments, cudaStream_t stream)
      : plan_(plan),
        arguments_(arguments),
        stream_(stream),
        workspace_(static_cast<uint8_t*>(arguments.workspace)),
        batch_{arguments.batch,
               plan.config.max_pages,
               plan.config.queries,
               static_cast<int>(
                   std::min<int64_t>(arguments.window_tokens, std::numeric_limits<int32_t>::max())),
               arguments.packed_tokens,
               arguments.tail_tokens,
               arguments.query_positions} {}

  absl::Status Run() const {
    TURBOKV_RETURN_IF_ERROR(LaunchPrepare());
    for (size_t pool = 0; pool < plan_.pools.size(); ++pool) {
      TURBOKV_RETURN_IF_ERROR(LaunchPages(pool));
    }
    return FinishesInPages() ? absl::OkStatus() : LaunchMerge();
  }

 private:
  // Whether the pages kernel gives results itself, which saves a kernel's launch, but leaves rows
  // of many short sequences to few thread blocks.
  bool FinishesInPages() const {
    constexpr int kMostUnitsABlock = 2;
    return !HasLists() && arguments_.tail_tokens == nullptr &&
           int64_t{batch_.batch} * plan_.rows.units <= int64_t{kMostUnitsABlock} * plan_.blocks;
  }

  OutputParams Output() const {
    return {arguments_.out, static_cast<int>(plan_.config.value_type), arguments_.lse,
            arguments_.sink_logits};
  }
  FinishParams Finish() const {
    if (!FinishesInPages()) return {};
    return {Workspace<int>(plan_.arrivals_offset), Output()};
  }

  template <typename T>
  T* Workspace(size_t offset) const {
    return reinterpret_cast<T*>(workspace_ + offset);
  }
  bool HasLists() const { return plan_.pools.size() > 1; }
  size_t ListEntries() const { return size_t(batch_.batch) * batch_.max_pages; }

  PageLists Lists(size_t pool) const {
    if (!HasLists()) return {arguments_.block_tables, nullptr, nullptr};
    return {Workspace<int32_t>(plan_.list_ids_offset) + pool * ListEntries(),
            Workspace<int32_t>(plan_.list_indices_offset) + pool * ListEntries(),
            Workspace<int32_t>(plan_.list_counts_offset) + pool * batch_.batch};
  }

  // `overlap`: the kernel may start while the one before it ends; it waits by itself.
  template <typename Params>
  absl::Status Launch(const LaunchShape& kernel, int64_t blocks, bool overlap, const Params& params,
                      absl::string_view name) const {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(kernel.threads);
    config.dynamicSmemBytes = kernel.shared_bytes;
    config.stream = stream_;
    config.attrs = &attribute;
    config.numAttrs = overlap && plan_.dependent_launches ? 1 : 0;
    void* pointers[] = {const_cast<Params*>(&params)};
    return ToStatus(cudaLaunchKernelExC(&config, kernel.function, pointers), name);
  }

  absl::Status LaunchPrepare() const {
    PrepareParams params{};
    params.batch = batch_;
    params.rows = plan_.rows;
    params.q = arguments_.q;
    params.value_type = static_cast<int>(plan_.config.value_type);
    params.scale = arguments_.softmax_scale * kLog2E;
    params.query_blocks = Workspace<void>(plan_.query_blocks_offset);
    params.finish = Finish();
    params.forms = plan_.query_forms;
    if (arguments_.tail_tokens != nullptr) {
      params.forms |= plan_.config.tail_type == ValueType::kFp16 ? kFp16Q : kBf16Q;
    }
    LaunchShape kernel = plan_.fixed.prepare;
    int tiles = kMostPrepareTiles;
    // A block of the pages kernel needs a multiprocessor for itself: leave it half of them.
    if (QueryBlocks() <= plan_.blocks / 2) {
      kernel.threads /= tiles;
      kernel.shared_bytes /= tiles;
      tiles = 1;
    }
    int64_t blocks = (QueryBlocks() + tiles - 1) / tiles;
    params.block_tables = arguments_.block_tables;
    if (HasLists()) {
      params.page_pools = arguments_.page_pools;
      params.pools = static_cast<int>(plan_.pools.size());
      params.list_ids = Workspace<int32_t>(plan_.list_ids_offset);
      params.list_indices = Workspace<int32_t>(plan_.list_indices_offset);
      params.list_counts = Workspace<int32_t>(plan_.list_counts_offset);
      const int warps = kernel.threads / kWarpThreads;
      blocks += (batch_.batch + warps - 1) / warps;
    }
    return Launch(kernel, blocks, false, params, "attention prepare kernel");
  }

  int64_t QueryBlocks() const {
    return int64_t{batch_.batch} * plan_.rows.units * plan_.rows.row_tiles;
  }

  absl::Status LaunchPages(size_t index) const {
    const PoolPlan& pool = plan_.pools[index];
    const PageLayout& layout = pool.layout;
    PagesParams params{};
    params.batch = batch_;
    params.rows = plan_.rows;
    params.lists = Lists(index);
    params.pages = arguments_.pools[index].device_base;
    params.stride_bytes = arguments_.pools[index].stride_bytes;
    params.slice_bytes = static_cast<int>(layout.slice_bytes);
    params.k_bytes = static_cast<int>(layout.v_codes.offset_bytes);
    params.k_mean = layout.shape.k_mean;
    params.soft_cap = arguments_.soft_cap * kLog2E;
    params.sparse_threshold = arguments_.sparse_v_threshold;
    params.query_blocks = Workspace<void>(plan_.query_blocks_offset);
    params.partial_values = Workspace<float>(pool.values_offset);
    params.partial_stats = Workspace<float>(pool.stats_offset);
    params.finish = Finish();
    return Launch(pool.kernel, plan_.blocks, true, params, "attention pages kernel");
  }

  absl::Status LaunchMerge() const {
    MergeParams params{};
    params.batch = batch_;
    params.rows = plan_.rows;
    params.tail = {arguments_.tail.k, arguments_.tail.v, arguments_.tail.sequence_stride,
                   arguments_.tail.token_stride, arguments_.tail.head_stride};
    params.soft_cap = arguments_.soft_cap * kLog2E;
    params.sparse_threshold = arguments_.sparse_v_threshold;
    params.query_blocks = Workspace<void>(plan_.query_blocks_offset);
    params.pools = static_cast<int>(plan_.pools.size());
    for (size_t i = 0; i < plan_.pools.size(); ++i) {
      const PoolPlan& pool = plan_.pools[i];
      params.partials[i] = {Lists(i),
                            Workspace<float>(pool.values_offset),
                            Workspace<float>(pool.stats_offset),
                            pool.warps,
                            plan_.blocks,
                            pool.v_rotated};
    }
    params.output = Output();
    return Launch(MergeKernel(), QueryBlocks(), true, params, "attention merge kernel");
  }

  const LaunchShape& MergeKernel() const {
    if (arguments_.tail_tokens == nullptr) return plan_.fixed.merge;
    return plan_.config.tail_type == ValueType::kFp16 ? plan_.fixed.merge_fp16_tail
                                                      : plan_.fixed.merge_bf16_tail;
  }

  const AttentionPlan& plan_;
  const AttentionArguments& arguments_;
  const cudaStream_t stream_;
  uint8_t* const workspace_;
  const BatchParams batch_;
};

class PlannedAttention : public DecodeAttention {
 public:
  explicit PlannedAttention(AttentionPlan plan) : plan_(std::move(plan)) {}

  size_t workspace_bytes() const override { return plan_.workspace_bytes; }

  absl::Status Run(const AttentionArguments& arguments, cudaStream_t stream) const override {
    TURBOKV_RETURN_IF_ERROR(ValidateArguments(plan_, arguments));
    int device = 0;
    TURBOKV_RETURN_IF_ERROR(ToStatus(cudaGetDevice(&device), "cudaGetDevice"));
    if (device != plan_.device) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the current device is ", device, "; this attention was created for ", plan_.device));
    }
#ifndef NDEBUG
    cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
    TURBOKV_RETURN_IF_ERROR(
        ToStatus(cudaStreamIsCapturing(stream, &capturing), "cudaStreamIsCapturing"));
    if (capturing == cudaStreamCaptureStatusNone) {
      TURBOKV_RETURN_IF_ERROR(CheckTables(arguments, stream));
    }
#endif
    return AttentionCall(plan_, arguments, stream).Run();
  }

  absl::Status CheckTables(const AttentionArguments& arguments,
                           cudaStream_t stream) const override {
    return cuda::CheckTables(plan_, arguments, stream);
  }

 private:
  const AttentionPlan plan_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DecodeAttention>> DecodeAttention::Create(
    const AttentionConfig& config) {
  TURBOKV_ASSIGN_OR_RETURN(AttentionPlan plan, PlanAttention(config));
  return std::make_unique<PlannedAttention>(std::move(plan));
}

}  // namespace turbokv::cuda
