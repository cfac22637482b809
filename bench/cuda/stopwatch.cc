#include "bench/cuda/stopwatch.h"

#include <algorithm>
#include <chrono>

#include "base/status_macros.h"
#include "bench/cuda/streaming.h"
#include "kernels/cuda/status.h"

namespace turbokv::bench {
namespace {

using cuda::ToStatus;

constexpr size_t kEvictorBytes = 256 << 20;
constexpr int kMinWarmUpIterations = 3;
constexpr auto kWarmUpTime = std::chrono::milliseconds(15);  // for the clocks to rise

Timing Summarize(std::vector<double> times_us) {
  std::sort(times_us.begin(), times_us.end());
  const size_t middle = times_us.size() / 2;
  const double median =
      times_us.size() % 2 == 1 ? times_us[middle] : (times_us[middle - 1] + times_us[middle]) / 2;
  return {median, times_us.front(), times_us.back(), static_cast<int>(times_us.size())};
}

// A captured graph, ready to be launched.
class Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() {
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
  }

  absl::Status Capture(const Work& work, cudaStream_t stream) {
    TURBOKV_RETURN_IF_ERROR(ToStatus(
        cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin of capture"));
    const absl::Status captured = work(stream);
    const cudaError_t ended = cudaStreamEndCapture(stream, &graph_);
    TURBOKV_RETURN_IF_ERROR(captured);
    TURBOKV_RETURN_IF_ERROR(ToStatus(ended, "end of capture"));
    return ToStatus(cudaGraphInstantiate(&executable_, graph_, 0), "cudaGraphInstantiate");
  }

  absl::Status Launch(cudaStream_t stream) const {
    return ToStatus(cudaGraphLaunch(executable_, stream), "cudaGraphLaunch");
  }

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Stopwatch>> Stopwatch::Create(int iterations) {
  auto stopwatch = std::unique_ptr<Stopwatch>(new Stopwatch(iterations));
  TURBOKV_RETURN_IF_ERROR(stopwatch->Prepare());
  return stopwatch;
}

absl::Status Stopwatch::Prepare() {
  TURBOKV_RETURN_IF_ERROR(
      ToStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"));
  for (int i = 0; i < 2 * iterations_; ++i) {
    TURBOKV_RETURN_IF_ERROR(ToStatus(cudaEventCreate(&events_.emplace_back()), "cudaEventCreate"));
  }
  TURBOKV_ASSIGN_OR_RETURN(evictor_, DeviceMemory::Allocate(kEvictorBytes));
  TURBOKV_ASSIGN_OR_RETURN(sink_, DeviceMemory::Allocate(sizeof(uint32_t)));
  return FillWithNoise(evictor_, stream_);
}

Stopwatch::~Stopwatch() {
  for (cudaEvent_t event : events_) cudaEventDestroy(event);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::Status Stopwatch::EvictL2() {
  StreamingArguments arguments;
  arguments.from = evictor_.As<uint8_t>();
  arguments.bytes = kEvictorBytes;
  arguments.sink = sink_.As<uint32_t>();
  return LaunchStreaming({ReadKernel(8, false), 1024, kMaxThreads, 0}, arguments, stream_);
}

absl::Status Stopwatch::WarmUp(const Work& work) {
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0;
       i < kMinWarmUpIterations || std::chrono::steady_clock::now() - begin < kWarmUpTime; ++i) {
    TURBOKV_RETURN_IF_ERROR(EvictL2());
    TURBOKV_RETURN_IF_ERROR(work(stream_));
    TURBOKV_RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream_), "warm-up"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Timing> Stopwatch::TimeLaunches(const Work& work, int iterations) {
  iterations = std::min(iterations, iterations_);
  TURBOKV_RETURN_IF_ERROR(WarmUp(work));
  // Nothing synchronises in between: while the cache is evicted, the host enqueues what follows, so
  // that no launch is waited for.
  for (int i = 0; i < iterations; ++i) {
    TURBOKV_RETURN_IF_ERROR(EvictL2());
    TURBOKV_RETURN_IF_ERROR(ToStatus(cudaEventRecord(events_[2 * i], stream_), "event"));
    TURBOKV_RETURN_IF_ERROR(work(stream_));
    TURBOKV_RETURN_IF_ERROR(ToStatus(cudaEventRecord(events_[2 * i + 1], stream_), "event"));
  }
  TURBOKV_RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream_), "timed work"));
  std::vector<double> times_us;
  for (int i = 0; i < iterations; ++i) {
    float ms = 0;
    TURBOKV_RETURN_IF_ERROR(
        ToStatus(cudaEventElapsedTime(&ms, events_[2 * i], events_[2 * i + 1]), "elapsed time"));
    times_us.push_back(1e3 * ms);
  }
  return Summarize(std::move(times_us));
}

absl::StatusOr<Timing> Stopwatch::TimeGraph(const Work& work) {
  Graph graph;
  TURBOKV_RETURN_IF_ERROR(graph.Capture(work, stream_));
  return TimeLaunches([&](cudaStream_t stream) { return graph.Launch(stream); });
}

}  // namespace turbokv::bench
