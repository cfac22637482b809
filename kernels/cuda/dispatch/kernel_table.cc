#include "kernels/cuda/dispatch/kernel_table.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/format/codec.h"

namespace turbokv::cuda {
namespace {

absl::Status WithKey(const KernelKey& key, const absl::Status& status) {
  return {status.code(), absl::StrCat("kernel ", key.ToString(), ": ", status.message())};
}

absl::Status CheckCodecs(const KernelKey& key) {
  for (const Codec codec : {key.k, key.v}) {
    if (!TraitsOf(codec).implemented) {
      return absl::UnimplementedError(
          absl::StrCat("codec ", CodecName(codec), " is not implemented"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

const void* KernelTable::FindCompiledAhead(const KernelKey& key) const {
  KernelKey wanted = key;
  wanted.arch = GpuArch::kAny;
  for (const AotKernel& kernel : compiled_ahead_) {
    if (kernel.key == wanted) return kernel.function;
  }
  return nullptr;
}

absl::StatusOr<const void*> KernelTable::Find(const KernelKey& key, int device) const {
  const absl::StatusOr<GpuArch> arch = GpuArchOfDevice(device);
  if (!arch.ok()) return WithKey(key, arch.status());
  return Find(key, *arch);
}

absl::StatusOr<const void*> KernelTable::Find(KernelKey key, GpuArch arch) const {
  key.arch = arch;
  if (absl::Status status = CheckCodecs(key); !status.ok()) return WithKey(key, status);
  if (RunsCompiledAhead(arch)) {
    if (const void* function = FindCompiledAhead(key); function != nullptr) return function;
  }
  if (source_ == nullptr) {
    return WithKey(key, absl::UnimplementedError(
                            "it is not compiled ahead, and cannot be compiled on first use"));
  }
  absl::StatusOr<std::string> source = source_(key);
  if (!source.ok()) return WithKey(key, source.status());
  absl::StatusOr<const void*> function =
      jit_->Kernel({.name = key.ToString(), .source = *std::move(source), .arch = arch});
  if (!function.ok()) return WithKey(key, function.status());
  return function;
}

}  // namespace turbokv::cuda
