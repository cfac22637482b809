// Which kernel an operation launches: one that was compiled ahead, or one compiled now.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cuda/dispatch/jit.h"
#include "kernels/cuda/dispatch/kernel_key.h"

namespace turbokv::cuda {

// A kernel that nvcc compiled into this binary.
struct AotKernel {
  KernelKey key;         // arch is kAny
  const void* function;  // the address of the __global__ function, as its .cu file exports it
};

// The translation unit of a kernel that was not: it includes device headers by their path in the
// repository and defines `extern "C" __global__ void turbokv_kernel(...)`. A status says that the
// operation has no such kernel. `key.arch` is the device's.
using KernelSource = absl::StatusOr<std::string> (*)(const KernelKey& key);

// The kernels of one operation. Immutable; may be used from any thread.
class KernelTable {
 public:
  // `compiled_ahead` and `jit` must outlive the table. A null `source`: nothing is compiled later.
  KernelTable(absl::Span<const AotKernel> compiled_ahead, KernelSource source,
              Jit* jit = &Jit::OfProcess())
      : compiled_ahead_(compiled_ahead), source_(source), jit_(jit) {}

  // For cudaLaunchKernel, cudaLaunchKernelExC, cudaFuncSetAttribute and their like, valid until the
  // process ends. key.arch is ignored: the device's counts. May compile (seconds).
  // UNIMPLEMENTED names the key: a codec that is only named yet, a device below 8.0, no such
  // kernel, or no libnvrtc to compile it.
  absl::StatusOr<const void*> Find(const KernelKey& key, int device) const;
  // The same for a device that takes `arch`.
  absl::StatusOr<const void*> Find(KernelKey key, GpuArch arch) const;

 private:
  const void* FindCompiledAhead(const KernelKey& key) const;

  const absl::Span<const AotKernel> compiled_ahead_;
  const KernelSource source_;
  Jit* const jit_;
};

}  // namespace turbokv::cuda
