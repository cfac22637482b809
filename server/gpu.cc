#include "server/gpu.h"

#include "base/status_macros.h"

#if TURBOKV_CUDA
#include "client/nccl/cuda_stream_ops.h"
#include "server/device/cuda_device.h"
#endif

namespace turbokv {

absl::StatusOr<Gpus> OpenGpus(const ServerConfig& config) {
  Gpus gpus;
  if (!config.gpu_memory.wanted()) return gpus;
#if TURBOKV_CUDA
  TURBOKV_ASSIGN_OR_RETURN(gpus.devices, OpenCudaDevices(config.gpus));
  gpus.streams = CudaStreamOps();
  return gpus;
#else
  return absl::UnimplementedError(
      "gpu_memory is set; this turbokvd was built without CUDA (TURBOKV_CUDA)");
#endif
}

}  // namespace turbokv
