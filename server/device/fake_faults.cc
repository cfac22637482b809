#include "server/device/fake_faults.h"

#include <utility>

#include "absl/time/clock.h"

namespace turbokv {

void FakeFaults::FailCall(int n, absl::Status error) {
  MutexLock lock(&mutex_);
  calls_until_failure_ = n;
  failure_ = std::move(error);
}

void FakeFaults::Break(absl::Status error) {
  MutexLock lock(&mutex_);
  if (broken_.ok()) broken_ = std::move(error);
  changed_.notify_all();
}

void FakeFaults::Hold() {
  MutexLock lock(&mutex_);
  held_ = true;
}

void FakeFaults::Release() {
  MutexLock lock(&mutex_);
  held_ = false;
  changed_.notify_all();
}

void FakeFaults::AwaitHeld(int streams) {
  MutexLock lock(&mutex_);
  while (waiting_ < streams) changed_.wait(mutex_);
}

void FakeFaults::SetDelay(absl::Duration delay) {
  MutexLock lock(&mutex_);
  delay_ = delay;
}

absl::Status FakeFaults::health() const {
  MutexLock lock(&mutex_);
  return broken_;
}

absl::Status FakeFaults::BeforeCall() {
  MutexLock lock(&mutex_);
  if (!broken_.ok()) return broken_;
  if (calls_until_failure_ < 0 || --calls_until_failure_ >= 0) return absl::OkStatus();
  return failure_;
}

absl::Status FakeFaults::BeforeWork() {
  absl::Duration delay;
  {
    MutexLock lock(&mutex_);
    ++waiting_;
    if (held_) changed_.notify_all();
    while (held_ && broken_.ok()) changed_.wait(mutex_);
    --waiting_;
    if (!broken_.ok()) return broken_;
    delay = delay_;
  }
  if (delay > absl::ZeroDuration()) absl::SleepFor(delay);
  return absl::OkStatus();
}

}  // namespace turbokv
