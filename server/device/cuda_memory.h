// Memory of a GPU, and host memory that it can reach.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "server/device/cuda_context.h"
#include "server/device/device.h"

namespace turbokv {

// RESOURCE_EXHAUSTED names requested, free and total bytes. `context` outlives what is returned.
absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocateCudaMemory(CudaContext* context,
                                                                 size_t bytes);
// Page-locked; of every GPU.
absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocatePinnedMemory(CudaContext* context,
                                                                   size_t bytes);

}  // namespace turbokv
