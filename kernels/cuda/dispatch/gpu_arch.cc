#include "kernels/cuda/dispatch/gpu_arch.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/status.h"

namespace turbokv::cuda {

absl::string_view GpuArchName(GpuArch arch) {
  switch (arch) {
    case GpuArch::kAny:
      return "any";
    case GpuArch::kSm80:
      return "sm_80";
    case GpuArch::kSm90a:
      return "sm_90a";
    case GpuArch::kCompute80:
      return "compute_80";
    case GpuArch::kCompute90:
      return "compute_90";
  }
  return "";
}

int InstructionSetOf(GpuArch arch) {
  return arch == GpuArch::kSm90a || arch == GpuArch::kCompute90 ? 90 : 80;
}

bool TakesPtx(GpuArch arch) { return arch == GpuArch::kCompute80 || arch == GpuArch::kCompute90; }

bool RunsCompiledAhead(GpuArch arch) { return arch != GpuArch::kCompute90; }

absl::StatusOr<GpuArch> GpuArchOfCapability(int major, int minor) {
  if (major < 8) {
    return absl::UnimplementedError(absl::StrCat("compute capability ", major, ".", minor,
                                                 " has no GPU kernels; 8.0 and later have"));
  }
  if (major == 8) return minor == 0 ? GpuArch::kSm80 : GpuArch::kCompute80;
  return major == 9 && minor == 0 ? GpuArch::kSm90a : GpuArch::kCompute90;
}

absl::StatusOr<GpuArch> GpuArchOfDevice(int device) {
  int major = 0;
  int minor = 0;
  TURBOKV_RETURN_IF_ERROR(
      ToStatus(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
               absl::StrCat("compute capability of CUDA device ", device)));
  TURBOKV_RETURN_IF_ERROR(
      ToStatus(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
               absl::StrCat("compute capability of CUDA device ", device)));
  return GpuArchOfCapability(major, minor);
}

}  // namespace turbokv::cuda
