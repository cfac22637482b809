// Images of kernels into the driver.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace turbokv::cuda {

// The name under which a translation unit compiled on first use exports its kernel.
inline constexpr char kJitKernelName[] = "turbokv_kernel";

// The kernel `kJitKernelName` of `image` (machine code, or PTX that ends with NUL) as a
// cudaKernel_t, which the launch functions of the CUDA runtime take in place of a function's
// address. It serves all devices, and stays loaded until the process ends.
absl::StatusOr<const void*> LoadKernelImage(const std::string& image);

}  // namespace turbokv::cuda
