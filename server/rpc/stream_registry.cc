#include "server/rpc/stream_registry.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace turbokv {

int64_t WatchedStream::NowUs() { return absl::GetCurrentTimeNanos() / 1000; }

absl::Status StreamRegistry::Add(WatchedStream* stream) {
  MutexLock lock(&mutex_);
  if (static_cast<int>(streams_.size()) >= limit_) {
    return absl::ResourceExhaustedError(
        absl::StrCat(streams_.size(), " ", what_, " are under way; the limit is ", limit_));
  }
  streams_.insert(stream);
  return absl::OkStatus();
}

void StreamRegistry::Remove(WatchedStream* stream) {
  MutexLock lock(&mutex_);
  streams_.erase(stream);
}

int StreamRegistry::active() const {
  MutexLock lock(&mutex_);
  return static_cast<int>(streams_.size());
}

void StreamRegistry::EndStalled(absl::Duration timeout) {
  const int64_t oldest_us = WatchedStream::NowUs() - absl::ToInt64Microseconds(timeout);
  MutexLock lock(&mutex_);
  for (WatchedStream* stream : streams_) {
    if (stream->last_progress_us_.load(std::memory_order_relaxed) < oldest_us ||
        stream->IsBroken()) {
      stream->OnStalled();
    }
  }
}

}  // namespace turbokv
