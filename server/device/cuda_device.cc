#include "server/device/cuda_device.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/device/cuda_arena.h"
#include "server/device/cuda_context.h"
#include "server/device/cuda_memory.h"
#include "server/device/cuda_stream.h"
#include "server/device/work_checks.h"

namespace turbokv {
namespace {

class CudaDevice final : public Device {
 public:
  CudaDevice(std::unique_ptr<CudaContext> context, size_t slab_granularity_bytes)
      : context_(std::move(context)), slab_granularity_bytes_(slab_granularity_bytes) {}

  const DeviceInfo& info() const override { return context_->info(); }
  absl::Status health() const override { return context_->health(); }
  absl::Status CheckShape(const PageShape& shape) const override { return CheckDeviceShape(shape); }
  size_t slab_granularity_bytes() const override { return slab_granularity_bytes_; }

  absl::StatusOr<std::unique_ptr<Arena>> MakeArena(size_t budget_bytes, size_t slab_bytes,
                                                   bool shareable) override {
    return MakeCudaArena(context_.get(), budget_bytes, slab_bytes, shareable);
  }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocatePinned(size_t bytes) override {
    return AllocatePinnedMemory(context_.get(), bytes);
  }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocateDevice(size_t bytes) override {
    return AllocateCudaMemory(context_.get(), bytes);
  }
  absl::StatusOr<std::unique_ptr<DeviceStream>> MakeStream() override {
    return CudaStream::Create(context_.get());
  }

 private:
  const std::unique_ptr<CudaContext> context_;
  const size_t slab_granularity_bytes_;
};

// Why there is nothing to count, in words that help.
absl::Status NoGpu(cudaError_t error) {
  int driver_version = 0, runtime_version = 0;
  cudaDriverGetVersion(&driver_version);
  cudaRuntimeGetVersion(&runtime_version);
  cudaGetLastError();
  if (driver_version == 0) {
    return absl::UnavailableError("no GPU can be used: there is no NVIDIA driver (libcuda.so.1)");
  }
  const auto version = [](int number) {
    return absl::StrCat(number / 1000, ".", number % 1000 / 10);
  };
  return absl::UnavailableError(absl::StrCat(
      "no GPU can be used: ", cudaGetErrorString(error), " (the driver is of CUDA ",
      version(driver_version), ", this binary of CUDA ", version(runtime_version), ")"));
}

absl::StatusOr<int> CountGpus() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) return NoGpu(error);
  if (count == 0) return NoGpu(cudaErrorNoDevice);
  return count;
}

absl::StatusOr<std::vector<int>> Choose(absl::Span<const int> indices, int count) {
  std::vector<int> chosen(indices.begin(), indices.end());
  for (int i = 0; indices.empty() && i < count; ++i) chosen.push_back(i);
  for (auto index = chosen.begin(); index != chosen.end(); ++index) {
    if (*index < 0 || *index >= count) {
      return absl::InvalidArgumentError(
          absl::StrCat("GPU ", *index, ": this machine has GPUs 0..", count - 1));
    }
    if (std::find(chosen.begin(), index, *index) != index) {
      return absl::InvalidArgumentError(absl::StrCat("GPU ", *index, " is given twice"));
    }
  }
  return chosen;
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Device>>> OpenCudaDevices(
    absl::Span<const int> indices) {
  TURBOKV_ASSIGN_OR_RETURN(const int count, CountGpus());
  TURBOKV_ASSIGN_OR_RETURN(const std::vector<int> chosen, Choose(indices, count));
  std::vector<std::unique_ptr<Device>> devices;
  for (const int index : chosen) {
    TURBOKV_ASSIGN_OR_RETURN(auto context, CudaContext::Open(index));
    TURBOKV_ASSIGN_OR_RETURN(const size_t granularity, CudaSlabGranularity(context.get()));
    devices.push_back(std::make_unique<CudaDevice>(std::move(context), granularity));
  }
  return devices;
}

}  // namespace turbokv
