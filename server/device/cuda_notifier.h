// Tells when a CUDA stream has got somewhere: a thread a stream, which sleeps until then, so that
// no stream's notifications wait for another's work.
//
// Events, not host functions (cudaLaunchHostFunc): those are never called once the GPU is broken,
// and the stream would wait for them.
#pragma once

#include <cuda_runtime_api.h>

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "server/device/cuda_context.h"

namespace turbokv {

class CudaNotifier {
 public:
  // `context` outlives this.
  explicit CudaNotifier(CudaContext* context);
  ~CudaNotifier();  // after the last notification
  CudaNotifier(const CudaNotifier&) = delete;
  CudaNotifier& operator=(const CudaNotifier&) = delete;

  // Calls `arrived`, on this object's thread, when what `stream` has been given so far is done,
  // with OK or what went wrong; in order. Always, whatever is broken.
  void Notify(cudaStream_t stream, std::function<void(absl::Status)> arrived);

 private:
  struct Arrival {
    cudaEvent_t event = nullptr;  // null: nothing to wait for
    absl::Status status;
    std::function<void(absl::Status)> arrived;
  };

  absl::Status Record(cudaStream_t stream, cudaEvent_t* event);
  absl::StatusOr<cudaEvent_t> TakeEvent();
  void Run();

  CudaContext* const context_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Arrival> arrivals_ ABSL_GUARDED_BY(mutex_);
  std::vector<cudaEvent_t> idle_events_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace turbokv
