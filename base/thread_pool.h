// A fixed set of threads for CPU-bound work.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace turbokv {

// Threads: all methods may be called from any thread. Destruction runs what is queued, then joins.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(threads_.size()); }

  // Queues `task`. The queue is unbounded: callers bound what they have in flight.
  void Schedule(std::function<void()> task);

  // Runs fn(0) ... fn(count - 1), on the pool's threads and the caller's, and returns when all are
  // done. Safe to call from a task of the same pool: the caller works too, so it cannot deadlock.
  void ParallelFor(size_t count, const std::function<void(size_t)>& fn);

 private:
  void Run();

  Mutex mutex_;
  CondVar wake_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

// Runs fn on `pool`, or on the calling thread when `pool` is null.
void ParallelFor(ThreadPool* pool, size_t count, const std::function<void(size_t)>& fn);

}  // namespace turbokv
