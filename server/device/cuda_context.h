// What the parts of a CUDA device share: which it is, and whether it still works.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/mutex.h"
#include "server/device/device.h"

namespace turbokv {

// Threads: any.
class CudaContext {
 public:
  // UNAVAILABLE when this binary has no code for the GPU.
  static absl::StatusOr<std::unique_ptr<CudaContext>> Open(int index);
  ~CudaContext();
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;

  const DeviceInfo& info() const { return info_; }
  absl::Status health() const;

  // Makes this the calling thread's GPU. The sticky error, if there is one.
  absl::Status Enter() const;

  // What a call to CUDA returned, as a status that names the GPU. After an error, finds out whether
  // the GPU can still be used, and keeps the error if not.
  absl::Status Check(cudaError_t error, absl::string_view what);
  absl::Status Check(const absl::Status& status);  // of what kernels/cuda returned

  // "cannot allocate N bytes on GPU I: F of T bytes are free".
  absl::Status OutOfMemory(absl::string_view what, size_t requested_bytes);

 private:
  explicit CudaContext(int index) { info_.index = index; }
  absl::Status Start();
  // Whether calls that have nothing to do with the error fail as well.
  bool IsBroken() const;

  DeviceInfo info_;
  cudaStream_t probe_ = nullptr;  // nothing is ever enqueued there
  mutable Mutex mutex_;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv
