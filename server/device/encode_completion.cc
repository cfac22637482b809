#include "server/device/encode_completion.h"

#include "base/check.h"

namespace turbokv {

EncodeCompletion::~EncodeCompletion() {
  MutexLock lock(&mutex_);
  Check(outstanding_pages_ == 0, "a completion outlives the encoding of its pages");
}

absl::Status EncodeCompletion::Wait() {
  MutexLock lock(&mutex_);
  while (outstanding_pages_ > 0) changed_.wait(mutex_);
  return first_error_;
}

absl::Status EncodeCompletion::first_error() const {
  MutexLock lock(&mutex_);
  return first_error_;
}

int64_t EncodeCompletion::outstanding_pages() const {
  MutexLock lock(&mutex_);
  return outstanding_pages_;
}

void EncodeCompletion::Begin() {
  MutexLock lock(&mutex_);
  ++outstanding_pages_;
}

void EncodeCompletion::End(int64_t pages, const absl::Status& first_error) {
  MutexLock lock(&mutex_);
  if (first_error_.ok()) first_error_ = first_error;
  outstanding_pages_ -= pages;
  // Under the lock: who waits may destroy this as soon as it has it.
  changed_.notify_all();
}

}  // namespace turbokv
