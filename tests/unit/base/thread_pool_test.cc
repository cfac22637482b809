#include "base/thread_pool.h"

#include <atomic>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace turbokv {
namespace {

TEST(ThreadPoolTest, RunsEveryIndexOnce) {
  ThreadPool pool(3);
  for (size_t count : {size_t{0}, size_t{1}, size_t{2}, size_t{1000}}) {
    std::vector<std::atomic<int>> runs(count);
    pool.ParallelFor(count, [&](size_t i) { ++runs[i]; });
    for (const std::atomic<int>& run : runs) EXPECT_EQ(run, 1);
  }
}

TEST(ThreadPoolTest, LoopsInsideLoopsDoNotDeadlock) {
  ThreadPool pool(2);
  std::atomic<int> runs{0};
  pool.ParallelFor(8, [&](size_t) { pool.ParallelFor(8, [&](size_t) { ++runs; }); });
  EXPECT_EQ(runs, 64);
}

TEST(ThreadPoolTest, LoopsFromSeveralThreadsKeepApart) {
  ThreadPool pool(2);
  std::vector<int> sums(4);
  std::vector<std::thread> callers;
  for (size_t caller = 0; caller < sums.size(); ++caller) {
    callers.emplace_back([&, caller] {
      std::vector<int> values(100);
      for (int repeat = 0; repeat < 50; ++repeat) {
        pool.ParallelFor(values.size(), [&](size_t i) { values[i] += static_cast<int>(caller); });
      }
      sums[caller] = std::accumulate(values.begin(), values.end(), 0);
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (size_t caller = 0; caller < sums.size(); ++caller) {
    EXPECT_EQ(sums[caller], static_cast<int>(caller) * 5000);
  }
}

TEST(ThreadPoolTest, DestructionRunsWhatIsQueued) {
  std::atomic<int> runs{0};
  {
    ThreadPool pool(1);
    for (int i = 0; i < 100; ++i) pool.Schedule([&] { ++runs; });
  }
  EXPECT_EQ(runs, 100);
}

TEST(ThreadPoolTest, NullPoolRunsOnTheCaller) {
  const std::thread::id caller = std::this_thread::get_id();
  int runs = 0;
  ParallelFor(nullptr, 5, [&](size_t) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    ++runs;
  });
  EXPECT_EQ(runs, 5);
}

}  // namespace
}  // namespace turbokv
