#include "server/device/cuda_notifier.h"

#include <utility>

#include "base/status_macros.h"

namespace turbokv {

CudaNotifier::CudaNotifier(CudaContext* context) : context_(context), thread_([this] { Run(); }) {}

CudaNotifier::~CudaNotifier() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
  for (cudaEvent_t event : idle_events_) cudaEventDestroy(event);
}

absl::StatusOr<cudaEvent_t> CudaNotifier::TakeEvent() {
  {
    MutexLock lock(&mutex_);
    if (!idle_events_.empty()) {
      cudaEvent_t event = idle_events_.back();
      idle_events_.pop_back();
      return event;
    }
  }
  cudaEvent_t event = nullptr;
  TURBOKV_RETURN_IF_ERROR(context_->Check(
      cudaEventCreateWithFlags(&event, cudaEventBlockingSync | cudaEventDisableTiming),
      "making an event"));
  return event;
}

absl::Status CudaNotifier::Record(cudaStream_t stream, cudaEvent_t* event) {
  TURBOKV_RETURN_IF_ERROR(context_->Enter());
  TURBOKV_ASSIGN_OR_RETURN(*event, TakeEvent());
  return context_->Check(cudaEventRecord(*event, stream), "recording an event");
}

void CudaNotifier::Notify(cudaStream_t stream, std::function<void(absl::Status)> arrived) {
  Arrival arrival;
  arrival.status = Record(stream, &arrival.event);
  arrival.arrived = std::move(arrived);
  MutexLock lock(&mutex_);
  arrivals_.push_back(std::move(arrival));
  changed_.notify_all();
}

void CudaNotifier::Run() {
  cudaSetDevice(context_->info().index);
  while (true) {
    Arrival arrival;
    {
      MutexLock lock(&mutex_);
      while (arrivals_.empty() && !stopping_) changed_.wait(mutex_);
      if (arrivals_.empty()) return;
      arrival = std::move(arrivals_.front());
      arrivals_.pop_front();
    }
    if (arrival.status.ok()) {
      arrival.status = context_->Check(cudaEventSynchronize(arrival.event), "running");
    }
    arrival.arrived(std::move(arrival.status));
    if (arrival.event == nullptr) continue;
    MutexLock lock(&mutex_);
    idle_events_.push_back(arrival.event);
  }
}

}  // namespace turbokv
