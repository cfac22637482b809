// A progress bar on standard error: done, total, rate and time left.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/mutex.h"

namespace turbokv::cli {

// Threads: Add may be called from any. Prints nothing unless standard error is a terminal or
// `always` is set; then a line is rewritten in place, or (no terminal) written anew each second.
class Progress {
 public:
  enum class Unit { kBytes, kItems };

  Progress(std::string label, Unit unit, int64_t total, bool always);
  ~Progress();  // prints the final state
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Add(int64_t amount);

 private:
  void Print() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string Amount(double amount) const;

  const std::string label_;
  const Unit unit_;
  const int64_t total_;
  const bool terminal_;
  const bool enabled_;
  const std::chrono::steady_clock::time_point start_;
  Mutex mutex_;
  int64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
  std::chrono::steady_clock::time_point printed_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv::cli
