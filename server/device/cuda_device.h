// NVIDIA GPUs.
//
// Memory of arenas comes from the driver's virtual memory management where the GPU has it: a slab
// is an allocation of its own, which another process maps by a file descriptor. Elsewhere an arena
// is one cudaMalloc, shared as a whole (cuda_arena.h).
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/device/device.h"

namespace turbokv {

// The GPUs of these indices, as CUDA counts them; all, if there are none. UNAVAILABLE says why no
// GPU can be used: no driver, no GPU, or none that this binary has code for. INVALID_ARGUMENT names
// an index that there is no GPU of, or that is given twice.
absl::StatusOr<std::vector<std::unique_ptr<Device>>> OpenCudaDevices(absl::Span<const int> indices);

}  // namespace turbokv
