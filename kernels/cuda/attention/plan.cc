#include "kernels/cuda/attention/plan.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/attention/compiled_pages.h"
#include "kernels/cuda/attention/division.cuh"
#include "kernels/cuda/attention/pages_config.cuh"
#include "kernels/cuda/dispatch/kernel_table.h"
#include "kernels/cuda/status.h"

namespace turbokv::cuda {
namespace {

constexpr size_t kWorkspaceAlignment = 256;
constexpr int kWarpThreads = 32;
// Queries and slices are numbered in 32 bits (division.cuh).
constexpr int64_t kMaxNumbers = int64_t{1} << 31;

absl::Status OutOfRange(absl::string_view field, int64_t value, int64_t first, int64_t last) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, " ", value, " is not in ", first, "..", last));
}

absl::Status ValidateShape(const AttentionShape& shape) {
  TURBOKV_RETURN_IF_ERROR(CheckGpuHeadDim(shape.head_dim));
  if (shape.kv_heads < 1 || shape.kv_heads > kMaxKvHeads) {
    return OutOfRange("kv_heads", shape.kv_heads, 1, kMaxKvHeads);
  }
  if (shape.q_heads < 1 || shape.q_heads % shape.kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("q_heads ", shape.q_heads, " is not a multiple of kv_heads ", shape.kv_heads));
  }
  if (shape.q_heads / shape.kv_heads > kMaxGroupSize) {
    return absl::InvalidArgumentError(absl::StrCat(
        "q_heads ", shape.q_heads, " of kv_heads ", shape.kv_heads, " is a group of ",
        shape.q_heads / shape.kv_heads, "; at most ", kMaxGroupSize, " are supported"));
  }
  return absl::OkStatus();
}

absl::Status ValidatePools(const AttentionConfig& config) {
  if (config.pools.empty() || config.pools.size() > kMaxPagePools) {
    return OutOfRange("the number of pools", config.pools.size(), 1, kMaxPagePools);
  }
  for (size_t i = 0; i < config.pools.size(); ++i) {
    const PageShape& pool = config.pools[i];
    if (pool.kv_heads != config.shape.kv_heads || pool.head_dim != config.shape.head_dim) {
      return absl::InvalidArgumentError(absl::StrCat(
          "pool ", i, " has ", pool.kv_heads, " KV heads of head_dim ", pool.head_dim,
          "; the attention has ", config.shape.kv_heads, " of ", config.shape.head_dim));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateConfig(const AttentionConfig& config) {
  TURBOKV_RETURN_IF_ERROR(ValidateShape(config.shape));
  TURBOKV_RETURN_IF_ERROR(ValidatePools(config));
  if (config.queries < 1 || config.queries > kMaxDecodeQueries) {
    return OutOfRange("queries", config.queries, 1, kMaxDecodeQueries);
  }
  constexpr int kMaxBatch = 1 << 16;
  if (config.max_batch < 1 || config.max_batch > kMaxBatch) {
    return OutOfRange("max_batch", config.max_batch, 1, kMaxBatch);
  }
  constexpr int kMaxPages = 1 << 23;  // 2^30 tokens: positions are 32-bit
  if (config.max_pages < 1 || config.max_pages > kMaxPages) {
    return OutOfRange("max_pages", config.max_pages, 1, kMaxPages);
  }
  for (const ValueType type : {config.value_type, config.tail_type}) {
    if (type < ValueType::kBf16 || type > ValueType::kFp32) {
      return OutOfRange("value type", static_cast<int>(type), 1, 3);
    }
  }
  if (config.tail_type == ValueType::kFp32) {
    return absl::UnimplementedError("tail_type fp32 has no GPU kernel; bf16 and fp16 have");
  }
  constexpr int kMaxBlocks = 1 << 16;
  if (config.blocks < 0 || config.blocks > kMaxBlocks) {
    return OutOfRange("blocks", config.blocks, 0, kMaxBlocks);
  }
  return absl::OkStatus();
}

RowParams PlanRows(const AttentionConfig& config) {
  RowParams rows{};
  rows.kv_heads = config.shape.kv_heads;
  rows.group = config.shape.q_heads / config.shape.kv_heads;
  rows.rows = config.queries * rows.group;
  rows.row_tiles = PagesRowTiles(config.shape.head_dim, rows.rows);
  const int unit_rows = 8 * rows.row_tiles;
  rows.units_per_head = (rows.rows + unit_rows - 1) / unit_rows;
  rows.units = rows.kv_heads * rows.units_per_head;
  return rows;
}

absl::StatusOr<std::string> PagesSource(const KernelKey& key) {
  const auto name = [](Codec codec) {
    return absl::StrCat("static_cast<turbokv::Codec>(", static_cast<int>(codec), ")");
  };
  return absl::StrCat("#include \"kernels/cuda/attention/pages_kernel.cuh\"\n",
                      "extern \"C\" TURBOKV_DEFINE_PAGES_KERNEL(turbokv_kernel, ", name(key.k),
                      ", ", name(key.v), ", ", key.head_dim, ", ", key.row_tiles, ")\n");
}

const KernelTable& PagesTable() {
  static const std::vector<AotKernel>* const compiled = [] {
    auto* kernels = new std::vector<AotKernel>();
    for (const CompiledPages& pages : AllCompiledPages()) {
      kernels->push_back(
          {{Operation::kAttentionPages, pages.k, pages.v, pages.head_dim, pages.row_tiles},
           pages.function});
    }
    return kernels;
  }();
  static const KernelTable* const table = new KernelTable(*compiled, PagesSource);
  return *table;
}

absl::StatusOr<PoolPlan> PlanPool(const AttentionPlan& plan, const PageShape& shape,
                                  int max_shared_bytes) {
  PoolPlan pool;
  TURBOKV_ASSIGN_OR_RETURN(pool.layout, PageLayout::For(shape));
  const KernelKey key{Operation::kAttentionPages, shape.k_codec, shape.v_codec, shape.head_dim,
                      plan.rows.row_tiles};
  TURBOKV_ASSIGN_OR_RETURN(pool.kernel.function, PagesTable().Find(key, plan.device));
  pool.warps = PagesWarps(shape.k_codec, shape.v_codec, shape.head_dim, plan.rows.row_tiles,
                          std::min(max_shared_bytes, kMaxSharedBytes));
  pool.kernel.threads = kWarpThreads * pool.warps;
  pool.kernel.shared_bytes =
      PagesSharedBytes(shape.k_codec, shape.v_codec, shape.head_dim, pool.warps);
  pool.v_rotated = FactsOf(shape.v_codec).rotated;
  if (pool.warps == 0) {
    return absl::UnimplementedError(
        absl::StrCat(key.ToString(), " needs ",
                     PagesSharedBytes(shape.k_codec, shape.v_codec, shape.head_dim, 1),
                     " bytes of shared memory; this GPU has ", max_shared_bytes));
  }
  return pool;
}

absl::Status AllowSharedMemory(const LaunchShape& kernel) {
  return ToStatus(cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(kernel.shared_bytes)),
                  "cudaFuncSetAttribute(MaxDynamicSharedMemorySize)");
}

// Hands out consecutive, aligned pieces of the workspace.
class WorkspaceLayout {
 public:
  size_t Add(size_t bytes) {
    const size_t offset = end_;
    end_ += (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
    return offset;
  }
  size_t end() const { return end_; }

 private:
  size_t end_ = 0;
};

void PlanWorkspace(AttentionPlan& plan) {
  WorkspaceLayout workspace;
  const AttentionConfig& config = plan.config;
  const size_t unit_rows = size_t{8} * plan.rows.row_tiles;
  const size_t units = static_cast<size_t>(config.max_batch) * plan.rows.units;
  plan.query_blocks_offset =
      workspace.Add(units * plan.rows.row_tiles * plan.fixed.query_block_bytes);
  for (PoolPlan& pool : plan.pools) {
    const size_t slots = static_cast<size_t>(plan.blocks) * pool.warps + units;
    pool.values_offset = workspace.Add(slots * unit_rows * config.shape.head_dim * sizeof(float));
    pool.stats_offset = workspace.Add(slots * unit_rows * 2 * sizeof(float));
  }
  if (plan.pools.size() == 1) plan.arrivals_offset = workspace.Add(units * unit_rows * sizeof(int));
  if (plan.pools.size() > 1) {
    const size_t entries =
        plan.pools.size() * static_cast<size_t>(config.max_batch) * config.max_pages;
    plan.list_ids_offset = workspace.Add(entries * sizeof(int32_t));
    plan.list_indices_offset = workspace.Add(entries * sizeof(int32_t));
    plan.list_counts_offset = workspace.Add(plan.pools.size() * config.max_batch * sizeof(int32_t));
  }
  plan.workspace_bytes = workspace.end();
}

// Whether the kernel was compiled for an architecture that has programmatic dependent launches, and
// so waits for the kernels before it (ptx.cuh). Code for older ones runs on newer devices too.
absl::StatusOr<bool> WaitsByItself(const LaunchShape& kernel) {
  constexpr int kFirstPtxVersion = 90;
  cudaFuncAttributes attributes;
  TURBOKV_RETURN_IF_ERROR(
      ToStatus(cudaFuncGetAttributes(&attributes, kernel.function), "cudaFuncGetAttributes"));
  return attributes.ptxVersion >= kFirstPtxVersion;
}

absl::StatusOr<int> DeviceAttribute(cudaDeviceAttr attribute, int device) {
  int value = 0;
  TURBOKV_RETURN_IF_ERROR(
      ToStatus(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute"));
  return value;
}

}  // namespace

absl::StatusOr<AttentionPlan> PlanAttention(const AttentionConfig& config) {
  TURBOKV_RETURN_IF_ERROR(ValidateConfig(config));
  AttentionPlan plan;
  plan.config = config;
  plan.rows = PlanRows(config);
  plan.fixed = FixedKernelsFor(config.shape.head_dim);
  if (int64_t{config.max_batch} * plan.rows.units * UnitNumbers(config.max_pages) >= kMaxNumbers) {
    return absl::InvalidArgumentError(absl::StrCat("max_batch ", config.max_batch, " x max_pages ",
                                                   config.max_pages, " x ", plan.rows.units,
                                                   " KV heads and row tiles is not below 2^31"));
  }
  TURBOKV_RETURN_IF_ERROR(ToStatus(cudaGetDevice(&plan.device), "cudaGetDevice"));
  TURBOKV_ASSIGN_OR_RETURN(const int multiprocessors,
                           DeviceAttribute(cudaDevAttrMultiProcessorCount, plan.device));
  TURBOKV_ASSIGN_OR_RETURN(const int max_shared_bytes,
                           DeviceAttribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, plan.device));
  TURBOKV_ASSIGN_OR_RETURN(plan.dependent_launches, WaitsByItself(plan.fixed.merge));
  plan.blocks = config.blocks == 0 ? multiprocessors : config.blocks;
  for (size_t i = 0; i < config.pools.size(); ++i) {
    absl::StatusOr<PoolPlan> pool = PlanPool(plan, config.pools[i], max_shared_bytes);
    if (!pool.ok()) {
      return absl::Status(pool.status().code(),
                          absl::StrCat("pool ", i, ": ", pool.status().message()));
    }
    TURBOKV_RETURN_IF_ERROR(AllowSharedMemory(pool->kernel));
    TURBOKV_ASSIGN_OR_RETURN(const bool waits, WaitsByItself(pool->kernel));
    plan.dependent_launches = plan.dependent_launches && waits;
    plan.query_forms |= QueryFormOf(config.pools[i].k_codec);
    if (config.pools[i].k_mean) plan.query_forms |= kFp16Q;
    plan.pools.push_back(*std::move(pool));
  }
  TURBOKV_RETURN_IF_ERROR(AllowSharedMemory(plan.fixed.prepare));
  TURBOKV_RETURN_IF_ERROR(AllowSharedMemory(plan.fixed.merge));
  TURBOKV_RETURN_IF_ERROR(AllowSharedMemory(plan.fixed.merge_bf16_tail));
  TURBOKV_RETURN_IF_ERROR(AllowSharedMemory(plan.fixed.merge_fp16_tail));
  PlanWorkspace(plan);
  return plan;
}

}  // namespace turbokv::cuda
