// What the kernel benchmarks share: --smoke, memory bandwidth, and results kept for ratios.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"

namespace turbokv {

// Removes --smoke from the arguments and returns whether it was there: sizes are then tiny, for
// CTest.
bool TakeSmokeFlag(int* argc, char** argv);

// The fastest iteration of a benchmark's loop, in the thread's CPU time: what the core can do, also
// while others use the machine. Put Begin and End around the body.
class FastestIteration {
 public:
  void Begin() { begin_s_ = ThreadCpuSeconds(); }
  void End() { best_s_ = std::min(best_s_, ThreadCpuSeconds() - begin_s_); }
  // Adds the counter `name`: `amount` of an iteration by the fastest one's time.
  void Report(benchmark::State& state, const char* name, double amount) const {
    state.counters[name] = amount / best_s_;
  }

 private:
  static double ThreadCpuSeconds();

  double begin_s_ = 0;
  double best_s_ = std::numeric_limits<double>::infinity();
};

inline constexpr char kBytesPerSecond[] = "best_bytes_per_s";
inline constexpr char kTokensPerSecond[] = "best_tokens_per_s";

// Registers "memory/read" and "memory/copy" over `bytes` of memory, counter kBytesPerSecond.
void RegisterMemoryBandwidth(size_t bytes);

// Prints to the console and keeps every benchmark's counters by name.
class KeepingReporter : public benchmark::ConsoleReporter {
 public:
  void ReportRuns(const std::vector<Run>& runs) override;

  // 0 when the benchmark did not run.
  double Counter(const std::string& benchmark, const std::string& counter) const;

 private:
  std::map<std::string, std::map<std::string, double>> counters_;
};

// bf16 bits of `count` standard normal values, reproducible.
std::vector<uint16_t> GaussianBf16(size_t count, uint32_t seed);

}  // namespace turbokv
