// How many log lines others can make this process write.
#pragma once

#include <cstdint>
#include <utility>

#include "absl/time/time.h"

namespace turbokv {

// Threads: one.
class LogLimiter {
 public:
  explicit LogLimiter(uint32_t lines_per_second) : lines_per_second_(lines_per_second) {}

  // Whether one more line may be written at `now`.
  bool Allow(absl::Time now) {
    if (now >= window_end_) {
      window_end_ = now + absl::Seconds(1);
      lines_ = 0;
    }
    if (lines_ < lines_per_second_) {
      ++lines_;
      return true;
    }
    ++suppressed_;
    return false;
  }

  // Lines that were not allowed since the last call.
  uint64_t TakeSuppressed() { return std::exchange(suppressed_, 0); }

 private:
  const uint32_t lines_per_second_;
  absl::Time window_end_ = absl::InfinitePast();
  uint32_t lines_ = 0;
  uint64_t suppressed_ = 0;
};

}  // namespace turbokv
