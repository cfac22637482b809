// The driver's virtual memory management, for one GPU.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/device/cuda_context.h"

namespace turbokv {

// Threads: any.
class CudaDriverMemory {
 public:
  // What the GPU can do. UNIMPLEMENTED when it has no virtual memory management (or, `shareable`,
  // no file descriptors of allocations).
  static absl::StatusOr<CudaDriverMemory> For(CudaContext* context, bool shareable);

  size_t granularity_bytes() const { return granularity_bytes_; }

  absl::StatusOr<uint8_t*> Reserve(size_t bytes) const;
  void Free(uint8_t* device, size_t bytes) const;

  // RESOURCE_EXHAUSTED without words about how much there is: CudaContext::OutOfMemory has them.
  absl::StatusOr<CUmemGenericAllocationHandle> Create(size_t bytes) const;
  void Release(CUmemGenericAllocationHandle memory) const;

  // Maps `memory` at reserved addresses, readable and writable.
  absl::Status Map(uint8_t* device, size_t bytes, CUmemGenericAllocationHandle memory) const;
  absl::Status Unmap(uint8_t* device, size_t bytes) const;

  // A file descriptor, close-on-exec, of the caller's.
  absl::StatusOr<int> Export(CUmemGenericAllocationHandle memory) const;

 private:
  explicit CudaDriverMemory(CudaContext* context) : context_(context) {}
  absl::Status Load(bool shareable);
  absl::Status Status(CUresult result, absl::string_view what) const;
  CUmemAllocationProp Properties() const;

  CudaContext* context_;
  bool shareable_ = false;
  size_t granularity_bytes_ = 0;
  decltype(&cuMemAddressReserve) reserve_ = nullptr;
  decltype(&cuMemAddressFree) free_ = nullptr;
  decltype(&cuMemCreate) create_ = nullptr;
  decltype(&cuMemRelease) release_ = nullptr;
  decltype(&cuMemMap) map_ = nullptr;
  decltype(&cuMemUnmap) unmap_ = nullptr;
  decltype(&cuMemSetAccess) set_access_ = nullptr;
  decltype(&cuMemExportToShareableHandle) export_ = nullptr;
};

}  // namespace turbokv
