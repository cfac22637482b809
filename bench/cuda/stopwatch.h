// Times work on a stream, every time with a cold L2 cache.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/cuda/device_memory.h"

namespace turbokv::bench {

// Of all iterations after warm-up, by CUDA events around the work alone.
struct Timing {
  double median_us = 0;
  double min_us = 0;
  double max_us = 0;
  int iterations = 0;

  double Spread() const { return (max_us - min_us) / median_us; }
};

// Enqueues the work to be timed; must not synchronise.
using Work = std::function<absl::Status(cudaStream_t)>;

class Stopwatch {
 public:
  static absl::StatusOr<std::unique_ptr<Stopwatch>> Create(int iterations);
  ~Stopwatch();
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  cudaStream_t stream() const { return stream_; }

  // Calls `work` for every iteration.
  absl::StatusOr<Timing> TimeLaunches(const Work& work) { return TimeLaunches(work, iterations_); }
  absl::StatusOr<Timing> TimeLaunches(const Work& work, int iterations);
  // Captures `work` once and replays the graph.
  absl::StatusOr<Timing> TimeGraph(const Work& work);

 private:
  explicit Stopwatch(int iterations) : iterations_(iterations) {}
  absl::Status Prepare();
  // Reads more than the cache holds. Reading, not writing: lines that are dirty would be written
  // back while the work is timed.
  absl::Status EvictL2();
  absl::Status WarmUp(const Work& work);

  const int iterations_;
  cudaStream_t stream_ = nullptr;
  std::vector<cudaEvent_t> events_;  // begin and end of every iteration
  DeviceMemory evictor_;
  DeviceMemory sink_;
};

}  // namespace turbokv::bench
