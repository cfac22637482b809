#include "server/device/cuda_memory.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

class CudaMemory final : public DeviceBuffer {
 public:
  CudaMemory(CudaContext* context, uint8_t* data, size_t size_bytes)
      : context_(context), data_(data), size_bytes_(size_bytes) {}
  ~CudaMemory() override {
    cudaSetDevice(context_->info().index);
    cudaFree(data_);
  }
  uint8_t* data() const override { return data_; }
  size_t size_bytes() const override { return size_bytes_; }

 private:
  CudaContext* const context_;
  uint8_t* const data_;
  const size_t size_bytes_;
};

class PinnedMemory final : public DeviceBuffer {
 public:
  PinnedMemory(uint8_t* data, size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}
  ~PinnedMemory() override { cudaFreeHost(data_); }
  uint8_t* data() const override { return data_; }
  size_t size_bytes() const override { return size_bytes_; }

 private:
  uint8_t* const data_;
  const size_t size_bytes_;
};

absl::Status CheckSize(size_t bytes) {
  if (bytes > 0) return absl::OkStatus();
  return absl::InvalidArgumentError("a buffer of 0 bytes: must be positive");
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocateCudaMemory(CudaContext* context,
                                                                 size_t bytes) {
  TURBOKV_RETURN_IF_ERROR(CheckSize(bytes));
  TURBOKV_RETURN_IF_ERROR(context->Enter());
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error == cudaErrorMemoryAllocation) return context->OutOfMemory("a buffer", bytes);
  TURBOKV_RETURN_IF_ERROR(context->Check(error, "allocating memory"));
  return std::make_unique<CudaMemory>(context, static_cast<uint8_t*>(data), bytes);
}

absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocatePinnedMemory(CudaContext* context,
                                                                   size_t bytes) {
  TURBOKV_RETURN_IF_ERROR(CheckSize(bytes));
  TURBOKV_RETURN_IF_ERROR(context->Enter());
  void* data = nullptr;
  TURBOKV_RETURN_IF_ERROR(context->Check(cudaHostAlloc(&data, bytes, cudaHostAllocPortable),
                                         absl::StrCat("page-locking ", bytes, " bytes")));
  return std::make_unique<PinnedMemory>(static_cast<uint8_t*>(data), bytes);
}

}  // namespace turbokv
