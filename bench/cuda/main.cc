// cuda_bench: the GPU's kernels against what its memory can do.
#include <cuda_runtime_api.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "bench/cuda/attention_run.h"
#include "bench/cuda/bandwidth.h"
#include "bench/cuda/cases.h"
#include "bench/cuda/results.h"
#include "bench/cuda/transcode_run.h"
#include "kernels/cuda/status.h"

namespace turbokv::bench {
namespace {

using cuda::ToStatus;

constexpr int kExitWithoutGpu = 77;

struct Flags {
  std::string filter;
  std::string json;
  int iterations = 30;
  bool smoke = false;
  bool list = false;
};

absl::StatusOr<nlohmann::json> DescribeDevice() {
  int device = 0;
  int driver = 0;
  int runtime = 0;
  cudaDeviceProp properties;
  TURBOKV_RETURN_IF_ERROR(ToStatus(cudaGetDevice(&device), "cudaGetDevice"));
  TURBOKV_RETURN_IF_ERROR(
      ToStatus(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties"));
  TURBOKV_RETURN_IF_ERROR(ToStatus(cudaDriverGetVersion(&driver), "cudaDriverGetVersion"));
  TURBOKV_RETURN_IF_ERROR(ToStatus(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion"));
  return nlohmann::json{
      {"name", properties.name},
      {"multiprocessors", properties.multiProcessorCount},
      {"compute_capability", absl::StrCat(properties.major, ".", properties.minor)},
      {"memory_bytes", properties.totalGlobalMem},
      {"l2_bytes", properties.l2CacheSize},
      {"cuda_driver", driver},
      {"cuda_runtime", runtime}};
}

void PrintNames(const Flags& flags) {
  const auto print = [&](const std::string& name) {
    if (absl::StrContains(name, flags.filter)) std::printf("%s\n", name.c_str());
  };
  for (const AttentionCase& test : AttentionCases(flags.smoke)) print(test.name);
  for (const TranscodeCase& test : TranscodeCases(flags.smoke)) print(test.name);
}

// A case that cannot be had is no reason to lose the others, unless the device is beyond use.
absl::Status RunCases(const Flags& flags, Stopwatch& stopwatch, Results& results) {
  PageSupply supply;
  const auto add = [&](const std::string& name, const auto& measure) {
    if (!absl::StrContains(name, flags.filter)) return absl::OkStatus();
    const absl::StatusOr<Measurement> measurement = measure();
    measurement.ok() ? results.Add(*measurement) : results.Skip(name, measurement.status());
    return ToStatus(cudaDeviceSynchronize(), name);
  };
  for (const AttentionCase& test : AttentionCases(flags.smoke)) {
    TURBOKV_RETURN_IF_ERROR(
        add(test.name, [&] { return MeasureAttention(test, supply, stopwatch); }));
  }
  for (const TranscodeCase& test : TranscodeCases(flags.smoke)) {
    TURBOKV_RETURN_IF_ERROR(
        add(test.name, [&] { return MeasureTranscode(test, supply, stopwatch); }));
  }
  if (results.wrong_count() > 0) {
    return absl::InternalError(absl::StrCat(results.wrong_count(), " cases gave wrong results"));
  }
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags) {
  TURBOKV_ASSIGN_OR_RETURN(nlohmann::json device, DescribeDevice());
  std::printf("%s, CUDA %d\n", device["name"].get<std::string>().c_str(),
              device["cuda_runtime"].get<int>());
  TURBOKV_ASSIGN_OR_RETURN(const auto stopwatch, Stopwatch::Create(flags.iterations));
  TURBOKV_ASSIGN_OR_RETURN(Bandwidth bandwidth, MeasureBandwidth(*stopwatch, flags.smoke));
  Results results(std::move(bandwidth));
  results.PrintHeader();
  const absl::Status status = RunCases(flags, *stopwatch, results);
  if (!flags.json.empty()) {
    TURBOKV_RETURN_IF_ERROR(results.WriteJson(flags.json, std::move(device)));
  }
  return status;
}

int Main(const Flags& flags) {
  if (flags.list) {
    PrintNames(flags);
    return 0;
  }
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "cuda_bench: no GPU here: %s\n",
                 error == cudaSuccess ? "no CUDA device" : cudaGetErrorString(error));
    return kExitWithoutGpu;
  }
  const absl::Status status = Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "cuda_bench: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace
}  // namespace turbokv::bench

int main(int argc, char** argv) {
  turbokv::bench::Flags flags;
  CLI::App app(
      "Measures attention, encoding and decoding on the GPU as shares of the memory bandwidth "
      "that\n"
      "it measures first. Every iteration begins with a cold L2 cache.");
  app.add_option("--filter", flags.filter, "Only cases whose name contains this");
  app.add_option("--iterations", flags.iterations, "Timed iterations of every case, after warm-up")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--json", flags.json, "Write every figure to this file");
  app.add_flag("--smoke", flags.smoke, "Tiny sizes: does it run at all?");
  app.add_flag("--list", flags.list, "Print the cases' names and exit");
  CLI11_PARSE(app, argc, argv);
  return turbokv::bench::Main(flags);
}
