// Arenas in GPU memory.
//
// With virtual memory management a slab is an allocation of its own, mapped at its place in one
// reserved range: it can be exported as a file descriptor, and replaced. Without, or where the GPU
// has no such descriptors, an arena is one cudaMalloc: Share gives a CUDA IPC handle of all of it,
// in which slab i begins at i x slab_bytes, and Renew of any slab fails from then on, because such
// memory cannot be replaced.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "server/device/cuda_context.h"
#include "server/pool/arena.h"

namespace turbokv {

// Slab sizes must be multiples of this. Asks the driver once a call.
absl::StatusOr<size_t> CudaSlabGranularity(CudaContext* context);

// RESOURCE_EXHAUSTED names requested, free and total bytes. `context` outlives the arena. What the
// caller may still have enqueued on a slab must be done before that slab is renewed.
absl::StatusOr<std::unique_ptr<Arena>> MakeCudaArena(CudaContext* context, size_t budget_bytes,
                                                     size_t slab_bytes, bool shareable);

}  // namespace turbokv
