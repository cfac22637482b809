// The pages of one store that a DeviceEncoder has not finished yet, and what went wrong first.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "base/mutex.h"

namespace turbokv {

// Threads: any. Outlives the encoding of its pages.
class EncodeCompletion {
 public:
  EncodeCompletion() = default;
  // REQUIRES: nothing outstanding.
  ~EncodeCompletion();
  EncodeCompletion(const EncodeCompletion&) = delete;
  EncodeCompletion& operator=(const EncodeCompletion&) = delete;

  // Waits for all pages submitted so far. The first error of any page, from then on.
  absl::Status Wait();
  // The first error so far, without waiting: a store may end early.
  absl::Status first_error() const;
  int64_t outstanding_pages() const;

  // For the encoder. End is the last that it does with this object and these pages.
  void Begin();
  void End(int64_t pages, const absl::Status& first_error);

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  int64_t outstanding_pages_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status first_error_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv
