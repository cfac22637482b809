// A configuration of attention with everything that can be decided before the first call.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/attention/fixed_kernels.h"
#include "kernels/cuda/attention/params.cuh"
#include "kernels/cuda/attention/query_forms.cuh"

namespace turbokv::cuda {

struct PoolPlan {
  PageLayout layout;
  LaunchShape kernel;
  int warps = 0;  // of a thread block
  bool v_rotated = false;
  // Offsets into the workspace.
  size_t values_offset = 0;
  size_t stats_offset = 0;
};

struct AttentionPlan {
  AttentionConfig config;
  int device = 0;
  bool dependent_launches = false;  // the device overlaps a kernel's start with the last one's end
  int blocks = 0;                   // of a pages kernel
  RowParams rows{};
  int query_forms = 0;  // QueryForm bits: those that pages want
  FixedKernels fixed;
  std::vector<PoolPlan> pools;
  // Offsets into the workspace; lists only where there are several pools.
  size_t query_blocks_offset = 0;
  size_t list_ids_offset = 0;
  size_t list_indices_offset = 0;
  size_t list_counts_offset = 0;
  size_t arrivals_offset = 0;  // only of one pool
  size_t workspace_bytes = 0;
};

// Of the current device; compiles what must be compiled.
absl::StatusOr<AttentionPlan> PlanAttention(const AttentionConfig& config);

// INVALID_ARGUMENT names the field, its value and the limit. Looks at host memory only.
absl::Status ValidateArguments(const AttentionPlan& plan, const AttentionArguments& arguments);

// What DecodeAttention::CheckTables says.
absl::Status CheckTables(const AttentionPlan& plan, const AttentionArguments& arguments,
                         cudaStream_t stream);

}  // namespace turbokv::cuda
