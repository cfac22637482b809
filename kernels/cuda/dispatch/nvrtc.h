// NVIDIA's run-time compiler, opened when it is first needed: binaries do not depend on it.
#pragma once

#include <nvrtc.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/cuda/dispatch/gpu_arch.h"

namespace turbokv::cuda {

// File names and paths in the order they are tried: where the dynamic linker looks
// ($LD_LIBRARY_PATH first), then the toolkit's usual place.
std::vector<std::string> NvrtcCandidates();

// May be used from any thread. The library stays open until the process ends.
class Nvrtc {
 public:
  // The first candidate that opens. UNIMPLEMENTED says what to install.
  static absl::StatusOr<Nvrtc> Open(absl::Span<const std::string> candidates);

  // Of the library: "13.0".
  const std::string& version() const { return version_; }

  // Machine code, or PTX where `arch` takes it. Sees the embedded headers and nothing of the
  // machine's. INTERNAL with the compiler's words when it does not compile.
  absl::StatusOr<std::string> Compile(const std::string& source, GpuArch arch) const;

  // Of the compiler, for `arch`.
  static std::vector<std::string> Options(GpuArch arch);

 private:
  struct Functions {
    decltype(&nvrtcVersion) version = nullptr;
    decltype(&nvrtcGetErrorString) error_string = nullptr;
    decltype(&nvrtcCreateProgram) create_program = nullptr;
    decltype(&nvrtcDestroyProgram) destroy_program = nullptr;
    decltype(&nvrtcCompileProgram) compile_program = nullptr;
    decltype(&nvrtcGetProgramLogSize) log_size = nullptr;
    decltype(&nvrtcGetProgramLog) log = nullptr;
    decltype(&nvrtcGetCUBINSize) cubin_size = nullptr;
    decltype(&nvrtcGetCUBIN) cubin = nullptr;
    decltype(&nvrtcGetPTXSize) ptx_size = nullptr;
    decltype(&nvrtcGetPTX) ptx = nullptr;
  };

  static absl::StatusOr<Functions> Resolve(void* library, absl::string_view path);
  absl::Status ToStatus(nvrtcResult result, absl::string_view what) const;
  std::string LogOf(nvrtcProgram program) const;
  absl::StatusOr<std::string> ImageOf(nvrtcProgram program, GpuArch arch) const;

  Functions functions_;
  std::string version_;
};

}  // namespace turbokv::cuda
