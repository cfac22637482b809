// Reads the headers of scattered pages to host memory: one kernel gathers them, one copy brings
// them.
#pragma once

#include "absl/status/statusor.h"
#include "client/device_pages.h"

namespace turbokv {

// On the calling thread's current GPU, on a stream of its own: it waits for itself only, so that
// the caller synchronises with the kernels whose pages are checked. The result is used by one
// thread at a time and must not outlive the GPU's context.
absl::StatusOr<ReadDevice> MakeCudaReadDevice();

}  // namespace turbokv
