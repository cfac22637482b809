// What can go wrong with a fake device, when a test says so.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace turbokv {

// Threads: any. Shared by a fake device, its streams and the test.
class FakeFaults {
 public:
  // The n-th call from now that enqueues work (0: the next) returns `error` and enqueues nothing.
  void FailCall(int n, absl::Status error);
  // As an error that the device cannot recover from, at once: what is enqueued is dropped.
  void Break(absl::Status error);

  // Streams begin no work between Hold and Release; notifications are held as well.
  void Hold();
  void Release();
  // Blocks until as many streams wait at the gate.
  void AwaitHeld(int streams);
  // Every piece of work takes at least this long.
  void SetDelay(absl::Duration delay);

  // For the device and its streams.
  absl::Status health() const;
  absl::Status BeforeCall();  // what the call returns
  absl::Status BeforeWork();  // blocks while held; an error: drop the work

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  int calls_until_failure_ ABSL_GUARDED_BY(mutex_) = -1;  // negative: none is going to
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  int waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Duration delay_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv
