#include "bench/cuda/streaming.h"

#include "base/status_macros.h"
#include "kernels/cuda/status.h"

namespace turbokv::bench {

using cuda::ToStatus;

absl::Status LaunchStreaming(const StreamingLaunch& launch, StreamingArguments arguments,
                             cudaStream_t stream) {
  void* parameters[] = {&arguments};
  return ToStatus(cudaLaunchKernel(launch.kernel, dim3(launch.blocks), dim3(launch.threads),
                                   parameters, launch.shared_bytes, stream),
                  "launch of a streaming kernel");
}

absl::Status FillWithNoise(const DeviceMemory& memory, cudaStream_t stream) {
  StreamingArguments arguments;
  arguments.to = memory.As<uint8_t>();
  arguments.bytes = static_cast<int64_t>(memory.bytes());
  TURBOKV_RETURN_IF_ERROR(LaunchStreaming({FillKernel(), 4096, kMaxThreads, 0}, arguments, stream));
  return ToStatus(cudaStreamSynchronize(stream), "fill with noise");
}

}  // namespace turbokv::bench
