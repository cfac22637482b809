#include "client/cuda/current_gpu.h"

#include <cuda_runtime_api.h>

#include "base/status_macros.h"
#include "kernels/cuda/device_uuid.h"
#include "kernels/cuda/status.h"

namespace turbokv {

absl::StatusOr<std::string> CurrentGpuUuid() {
  int index = 0;
  TURBOKV_RETURN_IF_ERROR(cuda::ToStatus(cudaGetDevice(&index), "the current GPU"));
  cudaDeviceProp properties;
  TURBOKV_RETURN_IF_ERROR(
      cuda::ToStatus(cudaGetDeviceProperties(&properties, index), "the current GPU's properties"));
  return cuda::FormatUuid(properties.uuid);
}

GpuScope::GpuScope(int index) {
  status_ = cuda::ToStatus(cudaGetDevice(&former_), "the current GPU");
  if (status_.ok()) status_ = cuda::ToStatus(cudaSetDevice(index), "choosing a GPU");
}

GpuScope::~GpuScope() {
  if (former_ >= 0) cudaSetDevice(former_);
}

}  // namespace turbokv
