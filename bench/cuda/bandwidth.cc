#include "bench/cuda/bandwidth.h"

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "bench/cuda/streaming.h"
#include "kernels/cuda/status.h"

namespace turbokv::bench {
namespace {

using cuda::ToStatus;

constexpr int kIterations = 7;  // of every way
constexpr int kThreads[] = {256, 512};
// Blocks a multiprocessor; 0: as many as there are steps.
constexpr int kBlocks[] = {2, 4, 8, 16, 0};

struct BulkShape {
  uint32_t chunk_bytes;
  int stages;
  int blocks_per_sm;
};
constexpr BulkShape kBulkShapes[] = {
    {4096, 8, 1},  {4096, 16, 2}, {4096, 16, 3}, {4096, 8, 4},  {8192, 8, 1},   {8192, 8, 2},
    {8192, 8, 3},  {8192, 6, 4},  {16384, 6, 1}, {16384, 8, 1}, {16384, 12, 1}, {16384, 4, 2},
    {16384, 6, 2}, {16384, 4, 3}, {32768, 4, 1}, {32768, 6, 1}, {32768, 3, 2},
};

struct Way {
  std::string name;
  bool copy;
  StreamingLaunch launch;
  uint32_t chunk_bytes;
  int stages;
};

std::vector<Way> PlainWays(int sms, int64_t bytes, bool copy) {
  std::vector<Way> ways;
  for (int unroll : kUnrolls) {
    for (int threads : kThreads) {
      for (int blocks : kBlocks) {
        for (bool prefetch : {false, true}) {
          if (copy && prefetch) continue;
          const int grid =
              blocks > 0 ? blocks * sms : static_cast<int>(bytes / 16 / threads / unroll);
          ways.push_back(
              {absl::StrFormat("%s/unroll:%d/threads:%d/blocks:%d%s", copy ? "copy" : "read",
                               unroll, threads, grid, prefetch ? "/prefetch:256" : ""),
               copy,
               {copy ? CopyKernel(unroll) : ReadKernel(unroll, prefetch), grid, threads, 0},
               0,
               0});
        }
      }
    }
  }
  return ways;
}

std::vector<Way> BulkWays(int sms, bool copy) {
  std::vector<Way> ways;
  for (const BulkShape& shape : kBulkShapes) {
    const int grid = shape.blocks_per_sm * sms;
    ways.push_back({absl::StrFormat("%s/bulk/chunk:%d/stages:%d/blocks:%d", copy ? "copy" : "read",
                                    shape.chunk_bytes, shape.stages, grid),
                    copy,
                    {copy ? BulkCopyKernel() : BulkReadKernel(), grid, 32,
                     BulkSharedBytes(shape.chunk_bytes, shape.stages)},
                    shape.chunk_bytes,
                    shape.stages});
  }
  return ways;
}

absl::StatusOr<std::vector<Way>> AllWays(int64_t bytes) {
  int device = 0;
  TURBOKV_RETURN_IF_ERROR(ToStatus(cudaGetDevice(&device), "cudaGetDevice"));
  cudaDeviceProp properties;
  TURBOKV_RETURN_IF_ERROR(
      ToStatus(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties"));
  std::vector<Way> ways;
  const auto add = [&](std::vector<Way> more) {
    ways.insert(ways.end(), more.begin(), more.end());
  };
  for (bool copy : {false, true}) {
    add(PlainWays(properties.multiProcessorCount, bytes, copy));
    if (properties.major < 9) continue;
    add(BulkWays(properties.multiProcessorCount, copy));
    TURBOKV_RETURN_IF_ERROR(
        ToStatus(cudaFuncSetAttribute(copy ? BulkCopyKernel() : BulkReadKernel(),
                                      cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(properties.sharedMemPerBlockOptin)),
                 "cudaFuncSetAttribute"));
  }
  return ways;
}

}  // namespace

absl::StatusOr<Bandwidth> MeasureBandwidth(Stopwatch& stopwatch, bool smoke) {
  const size_t bytes = smoke ? size_t{64} << 20 : size_t{4} << 30;
  TURBOKV_ASSIGN_OR_RETURN(const DeviceMemory from, DeviceMemory::Allocate(bytes));
  TURBOKV_ASSIGN_OR_RETURN(const DeviceMemory to, DeviceMemory::Allocate(bytes));
  TURBOKV_ASSIGN_OR_RETURN(const DeviceMemory sink, DeviceMemory::Allocate(sizeof(uint32_t)));
  TURBOKV_RETURN_IF_ERROR(FillWithNoise(from, stopwatch.stream()));
  StreamingArguments arguments{from.As<uint8_t>(), to.As<uint8_t>(), static_cast<int64_t>(bytes)};
  arguments.sink = sink.As<uint32_t>();

  Bandwidth result;
  const auto time = [&](const std::string& name, bool copy, const Work& work) -> absl::Status {
    TURBOKV_ASSIGN_OR_RETURN(const Timing timing, stopwatch.TimeLaunches(work, kIterations));
    const double moved = static_cast<double>(bytes) * (copy ? 2 : 1);
    result.all.push_back({name, moved / (1e-6 * timing.median_us)});
    StreamingRate& best = copy ? result.copy : result.read;
    if (result.all.back().bytes_per_s > best.bytes_per_s) best = result.all.back();
    return absl::OkStatus();
  };
  TURBOKV_ASSIGN_OR_RETURN(const std::vector<Way> ways, AllWays(arguments.bytes));
  for (const Way& way : ways) {
    arguments.chunk_bytes = way.chunk_bytes;
    arguments.stages = way.stages;
    TURBOKV_RETURN_IF_ERROR(time(way.name, way.copy, [&](cudaStream_t stream) {
      return LaunchStreaming(way.launch, arguments, stream);
    }));
  }
  TURBOKV_RETURN_IF_ERROR(time("copy/cudaMemcpyAsync", true, [&](cudaStream_t stream) {
    return ToStatus(cudaMemcpyAsync(to.As<uint8_t>(), from.As<uint8_t>(), bytes,
                                    cudaMemcpyDeviceToDevice, stream),
                    "cudaMemcpyAsync");
  }));
  arguments.bytes = 0;
  TURBOKV_ASSIGN_OR_RETURN(result.empty_launch, stopwatch.TimeLaunches([&](cudaStream_t stream) {
    return LaunchStreaming({FillKernel(), 1, 32, 0}, arguments, stream);
  }));
  return result;
}

}  // namespace turbokv::bench
