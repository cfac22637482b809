// Functions of the CUDA driver. Its library is not linked, so that binaries start where there is
// none: the runtime, which opens it at its first use, hands out its functions.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/status.h"

namespace turbokv::cuda {

// UNIMPLEMENTED when the driver is too old, UNAVAILABLE when there is none.
inline absl::Status FindInDriver(const char* name, void** function) {
  constexpr unsigned int kSinceCuda = 12000;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(name, function, kSinceCuda, cudaEnableDefault, &result);
#else
  const cudaError_t error = cudaGetDriverEntryPoint(name, function, cudaEnableDefault, &result);
#endif
  TURBOKV_RETURN_IF_ERROR(ToStatus(error, name));
  if (result != cudaDriverEntryPointSuccess || *function == nullptr) {
    return absl::UnimplementedError(absl::StrCat(
        "the CUDA driver has no ", name, "; it must be of CUDA ", kSinceCuda / 1000, " or later"));
  }
  return absl::OkStatus();
}

inline absl::Status DriverStatus(CUresult result, absl::string_view what) {
  // Both enumerations number the same errors the same way.
  return ToStatus(static_cast<cudaError_t>(result), what);
}

}  // namespace turbokv::cuda
