// The GPUs of this machine for turbokvd: hides whether the build has CUDA.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "client/nccl/stream_ops.h"
#include "server/config/config.h"
#include "server/device/device.h"

namespace turbokv {

struct Gpus {
  std::vector<std::unique_ptr<Device>> devices;  // none, unless gpu_memory is set
  StreamOps* streams = nullptr;                  // of NCCL channels; lives as long as the process
};

// What the settings gpu_memory and gpus ask for. UNIMPLEMENTED: this build has no CUDA; else as
// OpenCudaDevices.
absl::StatusOr<Gpus> OpenGpus(const ServerConfig& config);

}  // namespace turbokv
