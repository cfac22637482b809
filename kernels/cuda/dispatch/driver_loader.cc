#include "kernels/cuda/dispatch/driver_loader.h"

#include "base/status_macros.h"
#include "kernels/cuda/driver.h"

namespace turbokv::cuda {
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
