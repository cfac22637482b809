// Stores and fetches over NCCL from GPU 1 to a service on GPU 0, each in a process of its own.
//
//   nccl_ingest_bench [--tokens=32768] [--layers=32] [--smoke]
//
// Prints one JSON line each of: `raw_nccl` (transfers of one layer's K and V, nothing else),
// `store_raw` (raw bf16 to turbo4 pages that are visible), `store_pages` (encoded on GPU 1 first,
// in bytes of K/V as well), `fetch` (packed pages into GPU 1). 8 KV heads, head_dim 128. GB/s is
// the median of kRuns after a warm-up, each over all layers; `of_raw_nccl` its bytes that cross,
// over raw_nccl's. --smoke does little, once.
#include <cuda_runtime_api.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/nccl/cuda_stream_ops.h"
#include "client/nccl/nccl_fetch.h"
#include "client/nccl/nccl_prefill.h"
#include "kernels/format/small_floats.h"
#include "server/device/cuda_device.h"
#include "server/rpc/server.h"

extern char** environ;

namespace turbokv {
namespace {

constexpr int kHeads = 8;
constexpr int kHeadDim = 128;
constexpr size_t kTokenBytes = 2 * kHeads * kHeadDim;  // of K, or of V
constexpr int kWarmUps = 3;
constexpr int kTransfers = 20;
constexpr int kRuns = 5;

struct Sizes {
  int64_t tokens = 32768;
  int layers = 32;
  int runs = kRuns;

  int64_t blocks() const { return tokens / kPageTokens; }
  size_t layer_bytes() const { return 2 * kTokenBytes * static_cast<size_t>(tokens); }
};

// The service: prints its port and an id for a channel beside it, receives what comes there, and
// serves until its standard input ends.
absl::Status Serve(const Sizes& sizes) {
  TURBOKV_ASSIGN_OR_RETURN(auto devices, OpenCudaDevices({0}));
  TURBOKV_ASSIGN_OR_RETURN(const auto api, NcclApi::Load());
  TURBOKV_ASSIGN_OR_RETURN(const NcclUniqueId id, api->NewUniqueId());
  void* raw = nullptr;  // until the process ends
  if (cudaSetDevice(0) != cudaSuccess || cudaMalloc(&raw, sizes.layer_bytes()) != cudaSuccess) {
    return absl::ResourceExhaustedError(absl::StrCat("GPU 0: no ", sizes.layer_bytes(), " bytes"));
  }
  ServerConfig config;
  config.listen = "127.0.0.1:0";
  config.metrics_listen = "";
  config.gpu_memory.percent = 60;
  NcclOptions nccl;
  nccl.streams = CudaStreamOps();
  TURBOKV_ASSIGN_OR_RETURN(const auto server, Server::Start(config, std::move(devices), nccl));
  std::printf("%d %s\n", server->port(),
              absl::BytesToHexString(absl::string_view(id.bytes, sizeof(id.bytes))).c_str());
  std::fflush(stdout);
  NcclChannelOptions options;
  options.api = api;
  options.streams = CudaStreamOps();
  options.unique_id = id;
  options.peer = "GPU 1";
  TURBOKV_ASSIGN_OR_RETURN(const auto channel, NcclChannel::Connect(std::move(options)));
  for (int i = 0; i < kWarmUps + kTransfers; ++i) {
    TURBOKV_RETURN_IF_ERROR(
        channel->Receive({{static_cast<uint8_t*>(raw), sizes.layer_bytes()}}, nullptr));
  }
  char byte = 0;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
  server->Drain(absl::ZeroDuration());
  return absl::OkStatus();
}

class Worker {
 public:
  Worker(const Sizes& sizes, std::shared_ptr<const ResolvedSpec> spec)
      : sizes_(sizes), spec_(std::move(spec)), token_ids_(sizes.tokens) {
    for (size_t i = 0; i < token_ids_.size(); ++i) token_ids_[i] = static_cast<int32_t>(i % 32000);
  }

  absl::Status Connect(int port) {
    TURBOKV_ASSIGN_OR_RETURN(auto devices, OpenCudaDevices({1}));
    device_ = std::move(devices[0]);
    TURBOKV_ASSIGN_OR_RETURN(stream_, device_->MakeStream());
    TURBOKV_ASSIGN_OR_RETURN(api_, NcclApi::Load());
    ChannelOptions channel;
    channel.address = absl::StrCat("127.0.0.1:", port);
    TURBOKV_ASSIGN_OR_RETURN(channel_, CacheChannel::Connect(channel));
    NcclLinkOptions options;
    options.api = api_;
    options.streams = CudaStreamOps();
    options.device_index = 1;
    options.device_uuid = device_->info().uuid;
    options.peer_name = "bench";
    TURBOKV_ASSIGN_OR_RETURN(link_, NcclLink::Open(channel_, options));
    return Allocate();
  }

  absl::Status MeasureRawNccl(const NcclUniqueId& id) {
    NcclChannelOptions options;
    options.api = api_;
    options.streams = CudaStreamOps();
    options.unique_id = id;
    options.rank = 1;
    options.device_index = 1;
    options.peer = "GPU 0";
    TURBOKV_ASSIGN_OR_RETURN(const auto channel, NcclChannel::Connect(std::move(options)));
    absl::Time start;
    for (const int count : {kWarmUps, kTransfers}) {
      start = absl::Now();
      for (int i = 0; i < count; ++i) {
        TURBOKV_RETURN_IF_ERROR(channel->Send({{raw_->data(), raw_->size_bytes()}}, nullptr));
      }
      TURBOKV_RETURN_IF_ERROR(channel->Wait(absl::Now() + absl::Minutes(1)));
    }
    raw_gb_s_ = 1e-9 * kTransfers * static_cast<double>(raw_->size_bytes()) /
                absl::ToDoubleSeconds(absl::Now() - start);
    std::printf("{\"bench\": \"raw_nccl\", \"transfer_bytes\": %zu, \"gb_s\": %.1f}\n",
                raw_->size_bytes(), raw_gb_s_);
    return absl::OkStatus();
  }

  absl::Status MeasureStoreRaw() {
    return Measure("store_raw", all_raw_bytes(), all_raw_bytes(), [this] { return StoreRaw(); });
  }
  absl::Status MeasureStorePages() {
    return Measure("store_pages", all_raw_bytes(), all_page_bytes(),
                   [this] { return StorePages(); });
  }
  absl::Status MeasureFetch() {
    DecodeReader reader(channel_, spec_);
    LookupOptions lookup;
    lookup.salt = salt_;
    lookup.want_tail = false;
    lookup.lease = absl::Minutes(5);
    lookup.device_uuid = link_->service_device_uuid();
    TURBOKV_ASSIGN_OR_RETURN(const Match match, reader.Lookup(token_ids_, lookup));
    if (match.blocks != sizes_.blocks()) {
      return absl::InternalError(absl::StrCat("found ", match.blocks, " blocks"));
    }
    std::vector<uint8_t*> layers;
    uint8_t* next = pages_->data();
    for (const PageLayout& layout : spec_->layer_layouts) {
      layers.push_back(next);
      next += match.blocks * layout.page_bytes;
    }
    return Measure("fetch", all_page_bytes(), all_page_bytes(), [&] {
      return FetchOverNccl(channel_, link_.get(), spec_, match, {}, layers, nullptr);
    });
  }

 private:
  size_t all_raw_bytes() const { return sizes_.layers * sizes_.layer_bytes(); }
  size_t all_page_bytes() const { return sizes_.blocks() * spec_->block_bytes(); }

  absl::Status Allocate() {
    TURBOKV_ASSIGN_OR_RETURN(raw_, device_->AllocateDevice(sizes_.layer_bytes()));
    TURBOKV_ASSIGN_OR_RETURN(pages_, device_->AllocateDevice(all_page_bytes()));
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.5f, 1.0f);
    std::vector<uint16_t> values(size_t{1} << 20);
    for (uint16_t& value : values) value = FloatToBf16(normal(random));
    const size_t values_bytes = 2 * values.size();
    for (size_t begin = 0; begin < raw_->size_bytes(); begin += values_bytes) {
      TURBOKV_RETURN_IF_ERROR(stream_->CopyToDevice(
          raw_->data() + begin, reinterpret_cast<const uint8_t*>(values.data()),
          std::min(values_bytes, raw_->size_bytes() - begin)));
    }
    return stream_->Wait();
  }

  StoreOptions NextOptions() {
    StoreOptions options;
    salt_ = absl::StrCat("run ", ++run_);  // other keys: nothing is there yet
    options.salt = salt_;
    options.store_tail = false;
    return options;
  }

  absl::Status StoreRaw() {
    TURBOKV_ASSIGN_OR_RETURN(const auto store,
                             NcclPrefill::Open(channel_, link_, spec_, token_ids_, NextOptions()));
    for (int layer = 0; layer < sizes_.layers; ++layer) {
      TURBOKV_RETURN_IF_ERROR(
          store->WriteLayer(layer, raw_->data(), raw_->data() + raw_->size_bytes() / 2, {}));
    }
    return Stored(store->Finish());
  }

  absl::Status StorePages() {
    TURBOKV_ASSIGN_OR_RETURN(const auto store, NcclPrefill::OpenPages(channel_, link_, spec_,
                                                                      token_ids_, NextOptions()));
    uint8_t* next = pages_->data();
    for (int layer = 0; layer < sizes_.layers; ++layer) {
      DeviceEncode work;
      work.layout = spec_->layer_layouts[layer];
      work.device_k = raw_->data();
      work.device_v = raw_->data() + raw_->size_bytes() / 2;
      work.token_stride = int64_t{kHeads} * kHeadDim;
      work.head_stride = kHeadDim;
      work.identity.layer = static_cast<uint32_t>(layer);
      work.identity.spec_id = spec_->spec_id();
      uint8_t* const first = next;
      for (int64_t block = 0; block < sizes_.blocks(); ++block, next += work.layout.page_bytes) {
        work.device_pages.push_back(next);
      }
      TURBOKV_RETURN_IF_ERROR(stream_->Encode(work, nullptr));
      TURBOKV_RETURN_IF_ERROR(stream_->Wait());
      TURBOKV_RETURN_IF_ERROR(store->WritePages(layer, first));
    }
    return Stored(store->Finish());
  }

  absl::Status Stored(const absl::StatusOr<StoreResult>& result) const {
    TURBOKV_RETURN_IF_ERROR(result.status());
    if (result->stored_blocks == sizes_.blocks()) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("stored ", result->stored_blocks, " blocks"));
  }

  template <typename RunFn>
  absl::Status Measure(const char* name, size_t bytes, size_t crossing_bytes, RunFn run) {
    std::vector<double> seconds;
    for (int i = 0; i <= sizes_.runs; ++i) {
      const absl::Time start = absl::Now();
      TURBOKV_RETURN_IF_ERROR(run());
      if (i > 0) seconds.push_back(absl::ToDoubleSeconds(absl::Now() - start));
    }
    std::sort(seconds.begin(), seconds.end());
    const double median = seconds[seconds.size() / 2];
    std::printf(
        "{\"bench\": \"%s\", \"tokens\": %lld, \"layers\": %d, \"policy\": \"%s\", \"bytes\": %zu, "
        "\"crossing_bytes\": %zu, \"ms\": %.2f, \"ms_min\": %.2f, \"ms_max\": %.2f, \"gb_s\": "
        "%.1f, "
        "\"of_raw_nccl\": %.3f}\n",
        name, static_cast<long long>(sizes_.tokens), sizes_.layers, spec_->spec.policy.c_str(),
        bytes, crossing_bytes, 1e3 * median, 1e3 * seconds.front(), 1e3 * seconds.back(),
        1e-9 * static_cast<double>(bytes) / median,
        1e-9 * static_cast<double>(crossing_bytes) / median / raw_gb_s_);
    std::fflush(stdout);
    return absl::OkStatus();
  }

  const Sizes sizes_;
  const std::shared_ptr<const ResolvedSpec> spec_;
  std::vector<int32_t> token_ids_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<DeviceStream> stream_;
  std::unique_ptr<DeviceBuffer> raw_, pages_;
  std::shared_ptr<const NcclApi> api_;
  std::shared_ptr<CacheChannel> channel_;
  std::shared_ptr<NcclLink> link_;  // ends before the memory goes
  double raw_gb_s_ = 0;
  int run_ = 0;
  std::string salt_;
};

absl::Status Work(const Sizes& sizes, int port, const NcclUniqueId& id) {
  CacheSpec spec;
  spec.model_id = "bench";
  spec.layers = sizes.layers;
  spec.kv_heads = kHeads;
  spec.head_dim = kHeadDim;
  spec.policy = "k=turbo4,v=turbo4";
  TURBOKV_ASSIGN_OR_RETURN(ResolvedSpec resolved, ResolveSpec(spec));
  Worker worker(sizes, std::make_shared<const ResolvedSpec>(std::move(resolved)));
  TURBOKV_RETURN_IF_ERROR(worker.Connect(port));
  TURBOKV_RETURN_IF_ERROR(worker.MeasureRawNccl(id));
  TURBOKV_RETURN_IF_ERROR(worker.MeasureStoreRaw());
  TURBOKV_RETURN_IF_ERROR(worker.MeasureStorePages());
  return worker.MeasureFetch();
}

// This program again, as the service.
struct ServiceProcess {
  pid_t pid = -1;
  int input = -1;    // closed: it ends
  std::string line;  // what it printed
};

absl::StatusOr<ServiceProcess> StartService(char** argv) {
  int to_child[2];
  int from_child[2];
  if (pipe(to_child) != 0 || pipe(from_child) != 0) return absl::InternalError("no pipes");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, to_child[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, from_child[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, to_child[1]);
  posix_spawn_file_actions_addclose(&actions, from_child[0]);
  std::string program = "/proc/self/exe";
  std::string serve = "--serve";
  std::vector<char*> arguments = {program.data(), serve.data()};
  for (char** argument = argv + 1; *argument != nullptr; ++argument) arguments.push_back(*argument);
  arguments.push_back(nullptr);
  ServiceProcess service;
  if (posix_spawn(&service.pid, program.c_str(), &actions, nullptr, arguments.data(), environ) !=
      0) {
    return absl::InternalError("the service's process cannot be started");
  }
  posix_spawn_file_actions_destroy(&actions);
  close(to_child[0]);
  close(from_child[1]);
  service.input = to_child[1];
  char byte = 0;
  while (read(from_child[0], &byte, 1) == 1 && byte != '\n') service.line += byte;
  close(from_child[0]);
  return service;
}

absl::Status RunBoth(const Sizes& sizes, char** argv) {
  TURBOKV_ASSIGN_OR_RETURN(const ServiceProcess service, StartService(argv));
  const std::vector<std::string> words = absl::StrSplit(service.line, ' ');
  NcclUniqueId id = {};
  absl::Status status = absl::InternalError("the service did not start");
  if (words.size() == 2) {
    absl::HexStringToBytes(words[1]).copy(id.bytes, sizeof(id.bytes));
    status = Work(sizes, std::atoi(words[0].c_str()), id);
  }
  close(service.input);
  waitpid(service.pid, nullptr, 0);
  return status;
}

int Main(int argc, char** argv) {
  Sizes sizes;
  bool serve = false;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (argument == "--serve") serve = true;
    if (argument == "--smoke") sizes = {1024, 2, 1};
    if (absl::ConsumePrefix(&argument, "--tokens=")) sizes.tokens = std::atoi(argument.data());
    if (absl::ConsumePrefix(&argument, "--layers=")) sizes.layers = std::atoi(argument.data());
  }
  int gpus = 0;
  if (cudaGetDeviceCount(&gpus) != cudaSuccess || gpus < 2) {
    std::printf("skipped: two GPUs are needed; here: %d\n", gpus);
    return 0;
  }
  if (sizes.tokens < kPageTokens || sizes.tokens % kPageTokens != 0 || sizes.layers < 1) {
    std::fprintf(stderr, "--tokens must be a multiple of %d, --layers at least 1\n", kPageTokens);
    return 2;
  }
  const absl::Status status = serve ? Serve(sizes) : RunBoth(sizes, argv);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace turbokv

int main(int argc, char** argv) { return turbokv::Main(argc, argv); }
