// What machine code a GPU takes.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace turbokv::cuda {

// Kernels are written for two instruction sets, Ampere's and Hopper's. A GPU of exactly those takes
// machine code; any other one takes PTX of the nearest lower set, which its driver translates.
enum class GpuArch : uint8_t {
  kAny,        // in the key of a kernel that was compiled ahead: its fatbinary serves every GPU
  kSm80,       // compute capability 8.0
  kSm90a,      // 9.0
  kCompute80,  // 8.1 to 8.9, as PTX
  kCompute90,  // 9.1 and later, as PTX without what only 9.0 has ("a")
};

// The name that compilers know, "sm_90a"; "any" for kAny.
absl::string_view GpuArchName(GpuArch arch);

// 80 or 90: the instructions that a kernel may use (__CUDA_ARCH__ / 10).
int InstructionSetOf(GpuArch arch);

// PTX is text for the driver's compiler, otherwise machine code is wanted.
bool TakesPtx(GpuArch arch);

// Whether fatbinaries that hold sm_80 and sm_90a run there: 8.x runs what was compiled for 8.0.
bool RunsCompiledAhead(GpuArch arch);

// UNIMPLEMENTED below 8.0.
absl::StatusOr<GpuArch> GpuArchOfCapability(int major, int minor);

// Of a CUDA device number. Fails as the CUDA runtime does without a device or driver.
absl::StatusOr<GpuArch> GpuArchOfDevice(int device);

}  // namespace turbokv::cuda
