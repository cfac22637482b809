// Scattered pages to a contiguous buffer, or the other way, or from place to place, in one launch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "absl/status/status.h"
#include "kernels/cuda/copy/params.cuh"

namespace turbokv::cuda {

struct CopyArguments {
  // Device memory, [copies]. No copy may write what another reads or writes.
  const CopyDescriptor* copies = nullptr;
  int count = 0;
  size_t largest_bytes = 0;  // of all copies: how many blocks share one
};

// Stream-ordered; allocates nothing, may be captured into a CUDA graph. INVALID_ARGUMENT names the
// field, its value and the limit.
absl::Status CopyPages(const CopyArguments& arguments, cudaStream_t stream);

}  // namespace turbokv::cuda
