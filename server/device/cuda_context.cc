#include "server/device/cuda_context.h"

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/device_uuid.h"
#include "kernels/cuda/encode/seal_kernel.h"
#include "kernels/cuda/status.h"

namespace turbokv {

absl::StatusOr<std::unique_ptr<CudaContext>> CudaContext::Open(int index) {
  auto context = absl::WrapUnique(new CudaContext(index));
  TURBOKV_RETURN_IF_ERROR(context->Start());
  return context;
}

absl::Status CudaContext::Start() {
  const std::string gpu = absl::StrCat("GPU ", info_.index);
  TURBOKV_RETURN_IF_ERROR(cuda::ToStatus(cudaSetDevice(info_.index), gpu));
  // Threads that wait for the GPU sleep. Refused, and of no matter, if somebody uses it already.
  if (cudaSetDeviceFlags(cudaDeviceScheduleBlockingSync) != cudaSuccess) cudaGetLastError();
  cudaDeviceProp properties;
  TURBOKV_RETURN_IF_ERROR(cuda::ToStatus(cudaGetDeviceProperties(&properties, info_.index), gpu));
  info_.name = properties.name;
  info_.uuid = cuda::FormatUuid(properties.uuid);
  TURBOKV_RETURN_IF_ERROR(
      cuda::ToStatus(cudaMemGetInfo(&info_.free_bytes, &info_.total_bytes), gpu));
  cudaFuncAttributes attributes;
  if (const cudaError_t error = cudaFuncGetAttributes(&attributes, cuda::SealKernelFunction());
      error != cudaSuccess) {
    cudaGetLastError();
    return absl::UnavailableError(absl::StrCat(
        gpu, " (", info_.name, ", compute capability ", properties.major, ".", properties.minor,
        ") cannot run this binary's kernels: ", cudaGetErrorString(error)));
  }
  return cuda::ToStatus(cudaStreamCreateWithFlags(&probe_, cudaStreamNonBlocking), gpu);
}

CudaContext::~CudaContext() {
  if (probe_ == nullptr) return;
  cudaSetDevice(info_.index);
  cudaStreamDestroy(probe_);
}

absl::Status CudaContext::health() const {
  MutexLock lock(&mutex_);
  return broken_;
}

absl::Status CudaContext::Enter() const {
  TURBOKV_RETURN_IF_ERROR(health());
  const cudaError_t error = cudaSetDevice(info_.index);
  if (error == cudaSuccess) return absl::OkStatus();
  return cuda::ToStatus(error, absl::StrCat("GPU ", info_.index));
}

bool CudaContext::IsBroken() const {
  cudaGetLastError();  // an error that is not sticky is forgotten by this
  if (cudaSetDevice(info_.index) != cudaSuccess) return true;
  const cudaError_t probed = cudaStreamQuery(probe_);
  size_t free_bytes = 0, total_bytes = 0;
  const cudaError_t asked = cudaMemGetInfo(&free_bytes, &total_bytes);
  cudaGetLastError();
  return probed != cudaSuccess || asked != cudaSuccess;
}

absl::Status CudaContext::Check(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return Check(cuda::ToStatus(error, absl::StrCat("GPU ", info_.index, ": ", what)));
}

absl::Status CudaContext::Check(const absl::Status& status) {
  // Arguments that are refused never reached the GPU.
  if (status.ok() || absl::IsInvalidArgument(status) || absl::IsUnimplemented(status)) {
    return status;
  }
  if (!IsBroken()) return status;
  MutexLock lock(&mutex_);
  if (broken_.ok()) {
    broken_ =
        absl::InternalError(absl::StrCat("GPU ", info_.index, " (", info_.name, ", ", info_.uuid,
                                         ") cannot be used any more: ", status.message()));
  }
  return broken_;
}

absl::Status CudaContext::OutOfMemory(absl::string_view what, size_t requested_bytes) {
  cudaGetLastError();
  size_t free_bytes = 0, total_bytes = 0;
  TURBOKV_RETURN_IF_ERROR(Check(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for memory"));
  return absl::ResourceExhaustedError(absl::StrCat(
      "cannot allocate ", requested_bytes, " bytes on GPU ", info_.index, " (", info_.name,
      ") for ", what, ": ", free_bytes, " of ", total_bytes, " bytes are free"));
}

}  // namespace turbokv
