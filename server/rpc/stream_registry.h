// The streams under way: how many there may be, and which of them have stopped moving.
#pragma once

#include <atomic>
#include <cstdint>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace turbokv {

class StreamRegistry;

// A stream that waits for its client. Threads: any.
class WatchedStream {
 public:
  WatchedStream() { Touch(); }
  virtual ~WatchedStream() = default;

  // Ends the stream if it is still waiting for its client. Must not call the registry.
  virtual void OnStalled() = 0;
  // Whether it need not be waited for: something else that it depends on has failed.
  virtual bool IsBroken() const { return false; }

 protected:
  // Something moved.
  void Touch() { last_progress_us_.store(NowUs(), std::memory_order_relaxed); }

 private:
  friend class StreamRegistry;
  static int64_t NowUs();
  std::atomic<int64_t> last_progress_us_{0};
};

// Threads: any.
class StreamRegistry {
 public:
  // `what` ("stores") is for the message.
  StreamRegistry(absl::string_view what, int limit) : what_(what), limit_(limit) {}

  // RESOURCE_EXHAUSTED when `limit` streams are under way.
  absl::Status Add(WatchedStream* stream);
  // After it, OnStalled is not called any more. A stream that was not admitted is ignored.
  void Remove(WatchedStream* stream);

  int active() const;
  // Calls OnStalled for each stream in which nothing moved for `timeout`, or that is broken.
  void EndStalled(absl::Duration timeout);

 private:
  const absl::string_view what_;
  const int limit_;
  mutable Mutex mutex_;
  std::set<WatchedStream*> streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv
