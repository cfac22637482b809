// Launches of the streaming kernels.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "bench/cuda/device_memory.h"
#include "bench/cuda/streaming_kernels.h"

namespace turbokv::bench {

struct StreamingLaunch {
  const void* kernel = nullptr;
  int blocks = 0;
  int threads = 0;
  uint32_t shared_bytes = 0;
};

absl::Status LaunchStreaming(const StreamingLaunch& launch, StreamingArguments arguments,
                             cudaStream_t stream);

// Fills memory, a multiple of 16 KiB, with words that differ.
absl::Status FillWithNoise(const DeviceMemory& memory, cudaStream_t stream);

}  // namespace turbokv::bench
