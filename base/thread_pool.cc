#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

namespace turbokv {
namespace {

// Shared by the threads that work on one ParallelFor. Helpers that start after the loop has ended
// find no index left and only drop their reference; `fn` outlives every claimed index.
struct Loop {
  const std::function<void(size_t)>* fn;
  size_t count;
  std::atomic<size_t> next{0};
  Mutex mutex;
  CondVar all_done;
  size_t done ABSL_GUARDED_BY(mutex) = 0;

  void Work() {
    size_t finished = 0;
    for (size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
      (*fn)(i);
      ++finished;
    }
    if (finished == 0) return;
    MutexLock lock(&mutex);
    done += finished;
    if (done == count) all_done.notify_all();
  }

  void Wait() {
    MutexLock lock(&mutex);
    while (done < count) all_done.wait(mutex);
  }
};

}  // namespace

ThreadPool::ThreadPool(int threads) {
  threads_.reserve(threads);
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::Schedule(std::function<void()> task) {
  {
    MutexLock lock(&mutex_);
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
}

void ThreadPool::ParallelFor(size_t count, const std::function<void(size_t)>& fn) {
  if (count == 0) return;
  auto loop = std::make_shared<Loop>();
  loop->fn = &fn;
  loop->count = count;
  const size_t helpers = std::min(count - 1, threads_.size());
  for (size_t i = 0; i < helpers; ++i) Schedule([loop] { loop->Work(); });
  loop->Work();
  loop->Wait();
}

void ThreadPool::Run() {
  while (true) {
    std::function<void()> task;
    {
      MutexLock lock(&mutex_);
      while (tasks_.empty() && !stopping_) wake_.wait(mutex_);
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

void ParallelFor(ThreadPool* pool, size_t count, const std::function<void(size_t)>& fn) {
  if (pool != nullptr) {
    pool->ParallelFor(count, fn);
    return;
  }
  for (size_t i = 0; i < count; ++i) fn(i);
}

}  // namespace turbokv
