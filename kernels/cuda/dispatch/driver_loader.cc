#include "kernels/cuda/dispatch/driver_loader.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/status.h"

namespace turbokv::cuda {
namespace {

// The driver's library is not linked, so that binaries start where there is none: the runtime,
// which opens it at its first use, hands out its functions.
absl::Status FindInDriver(const char* name, void** function) {
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

absl::Status DriverStatus(CUresult result, absl::string_view what) {
  // Both enumerations number the same errors the same way.
  return ToStatus(static_cast<cudaError_t>(result), what);
}

}  // namespace

absl::StatusOr<const void*> LoadKernelImage(const std::string& image) {
  decltype(&cuLibraryLoadData) load = nullptr;
  decltype(&cuLibraryGetKernel) get_kernel = nullptr;
  TURBOKV_RETURN_IF_ERROR(FindInDriver("cuLibraryLoadData", reinterpret_cast<void**>(&load)));
  TURBOKV_RETURN_IF_ERROR(
      FindInDriver("cuLibraryGetKernel", reinterpret_cast<void**>(&get_kernel)));
  CUlibrary library = nullptr;
  TURBOKV_RETURN_IF_ERROR(DriverStatus(
      load(&library, image.data(), nullptr, nullptr, 0, nullptr, nullptr, 0), "cuLibraryLoadData"));
  CUkernel kernel = nullptr;
  TURBOKV_RETURN_IF_ERROR(
      DriverStatus(get_kernel(&kernel, library, kJitKernelName), "cuLibraryGetKernel"));
  return reinterpret_cast<const void*>(kernel);
}

}  // namespace turbokv::cuda
