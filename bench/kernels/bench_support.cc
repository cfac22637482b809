#include "bench/kernels/bench_support.h"

#include <time.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "kernels/format/small_floats.h"

namespace turbokv {
namespace {

// Eight independent sums: the compiler vectorizes this, and memory limits it.
uint64_t SumWords(const std::vector<uint64_t>& words) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= words.size(); i += 8) {
    for (size_t j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  uint64_t total = 0;
  for (uint64_t sum : sums) total += sum;
  return total;
}

void ReadMemory(benchmark::State& state, size_t bytes) {
  const std::vector<uint64_t> words(bytes / sizeof(uint64_t), 1);
  FastestIteration fastest;
  for (auto _ : state) {
    fastest.Begin();
    benchmark::DoNotOptimize(SumWords(words));
    fastest.End();
  }
  fastest.Report(state, kBytesPerSecond, static_cast<double>(bytes));
}

// Counts the bytes copied once, although they are read and written.
void CopyMemory(benchmark::State& state, size_t bytes) {
  const std::vector<char> from(bytes, 1);
  std::vector<char> to(bytes, 2);
  FastestIteration fastest;
  for (auto _ : state) {
    fastest.Begin();
    std::memcpy(to.data(), from.data(), bytes);
    benchmark::ClobberMemory();
    fastest.End();
  }
  fastest.Report(state, kBytesPerSecond, static_cast<double>(bytes));
}

}  // namespace

double FastestIteration::ThreadCpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

bool TakeSmokeFlag(int* argc, char** argv) {
  char** end = std::remove_if(argv, argv + *argc,
                              [](const char* arg) { return std::strcmp(arg, "--smoke") == 0; });
  const bool found = end != argv + *argc;
  *argc = static_cast<int>(end - argv);
  return found;
}

void RegisterMemoryBandwidth(size_t bytes) {
  benchmark::RegisterBenchmark("memory/read", ReadMemory, bytes)->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("memory/copy", CopyMemory, bytes)->Unit(benchmark::kMillisecond);
}

void KeepingReporter::ReportRuns(const std::vector<Run>& runs) {
  ConsoleReporter::ReportRuns(runs);
  for (const Run& run : runs) {
    for (const auto& [name, counter] : run.counters) {
      // The best of repetitions: the machine may be shared.
      double& kept = counters_[run.run_name.function_name][name];
      if (run.run_type == Run::RT_Iteration) kept = std::max(kept, counter.value);
    }
  }
}

double KeepingReporter::Counter(const std::string& benchmark, const std::string& counter) const {
  const auto found = counters_.find(benchmark);
  if (found == counters_.end()) return 0;
  const auto value = found->second.find(counter);
  return value == found->second.end() ? 0 : value->second;
}

std::vector<uint16_t> GaussianBf16(size_t count, uint32_t seed) {
  // Repeats a short sequence: codes still differ, and set-up stays short.
  constexpr size_t kDistinct = 1 << 20;
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = i < kDistinct ? FloatToBf16(normal(rng)) : values[i - kDistinct];
  }
  return values;
}

}  // namespace turbokv
