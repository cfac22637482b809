// Goodput of each road to the service beside a raw socket's, in one run.
//
//   transport_bench [--rounds N] [--layers N] [--tokens N] [--only NAME] [--gpu-memory SIZE]
//   [--smoke]
//
// The server is a process of its own on this host. Every round measures each of:
//   socket             raw TCP, 256 KiB chunks, the receiver looks at nothing
//   ROAD.fetch         bf16 pages, verified by checksum on both sides
//   ROAD.store_pages   bf16 pages as they are (no encoding), verified by the server
//   encoder            the default codec on one thread, without any service
//   ROAD.store_raw     raw bf16 K/V, encoded by the server with the default codec
// for the roads grpc and shm, and the medians are compared: goodput is bytes of pages (or of raw
// K/V) by wall time, from opening the call to its end. With --gpu-memory the server's blocks lie in
// GPU memory and are encoded there; then only grpc is measured.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/transport/raw_socket.h"
#include "bench/transport/server_process.h"
#include "client/admin_client.h"
#include "client/decode_reader.h"
#include "client/prefill_writer.h"
#include "kernels/cpu/codec.h"
#include "kernels/format/small_floats.h"
#include "server/config/config.h"

namespace turbokv::bench {
namespace {

constexpr size_t kChunkBytes = size_t{256} << 10;
constexpr int kKvHeads = 8;
constexpr int kHeadDim = 128;

struct Options {
  int rounds = 7;
  int layers = 8;
  int tokens = 2048;
  size_t gpu_memory_bytes = 0;
  std::string only;
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&] { return i + 1 < argc ? std::atoi(argv[++i]) : 0; };
    if (flag == "--smoke") {
      options = {1, 2, 256, 0, ""};
    } else if (flag == "--rounds") {
      options.rounds = std::max(1, value());
    } else if (flag == "--layers") {
      options.layers = std::max(1, value());
    } else if (flag == "--only" && i + 1 < argc) {
      options.only = argv[++i];
    } else if (flag == "--gpu-memory" && i + 1 < argc) {
      options.gpu_memory_bytes = Require(ParseByteSize(argv[++i]));
    } else if (flag == "--tokens") {
      options.tokens = std::max(kPageTokens, value() / kPageTokens * kPageTokens);
    }
  }
  return options;
}

double SecondsOf(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

ServerConfig ConfigOf(const Options& options, const std::string& socket_path) {
  ServerConfig config;
  config.listen = "127.0.0.1:0";
  config.metrics_listen = "";
  config.memory_bytes = size_t{2} << 30;
  config.slab_bytes = size_t{64} << 20;
  config.gpu_memory.bytes = options.gpu_memory_bytes;
  if (options.gpu_memory_bytes == 0) config.share_socket = socket_path;
  return config;
}

std::shared_ptr<const ResolvedSpec> SpecWith(const Options& options, const std::string& policy) {
  CacheSpec spec;
  spec.model_id = "transport-bench";
  spec.layers = options.layers;
  spec.kv_heads = kKvHeads;
  spec.head_dim = kHeadDim;
  spec.policy = policy;
  return std::make_shared<const ResolvedSpec>(Require(ResolveSpec(spec)));
}

class TransportBench {
 public:
  TransportBench(const Options& options, int port, Road road)
      : options_(options),
        plain_(SpecWith(options, "bf16")),
        packed_(SpecWith(options, std::string(kDefaultPolicy))),
        values_(2 * size_t{1} * options.tokens * kKvHeads * kHeadDim),
        token_ids_(options.tokens) {
    ChannelOptions channel;
    channel.address = absl::StrCat("127.0.0.1:", port);
    channel.transport = road;
    channel_ = Require(CacheChannel::Connect(channel));
    for (size_t i = 0; i < values_.size(); ++i) {
      values_[i] = FloatToBf16(
          static_cast<float>(static_cast<int>(i * 2654435761u >> 16 & 1023)) / 256.0f - 2.0f);
    }
    for (int i = 0; i < options.tokens; ++i) token_ids_[i] = i;
    EncodePlainPages();
  }

  size_t raw_bytes() const { return options_.layers * values_.size() * sizeof(uint16_t); }
  size_t page_bytes() const { return plain_->block_bytes() * blocks(); }

  double StorePages() {
    Forget(*plain_);
    return SecondsOf([&] {
      StoreOptions store;
      store.chunk_bytes = kChunkBytes;
      auto writer = Require(PrefillWriter::OpenPages(channel_, plain_, token_ids_, store));
      for (int layer = 0; layer < options_.layers; ++layer) {
        for (int64_t block = 0; block < blocks(); ++block) {
          Require(writer->WritePage(layer, block, pages_[layer * blocks() + block]));
        }
      }
      Require(writer->Finish());
    });
  }

  double Fetch() {
    DecodeReader reader(channel_, plain_);
    const Match match = Require(reader.Lookup(token_ids_, {}));
    if (match.blocks != blocks()) std::exit(1);
    return SecondsOf([&] {
      FetchOptions fetch;
      fetch.chunk_bytes = kChunkBytes;
      Require(reader.Fetch(fetch, [](const FetchedLayer&) { return absl::OkStatus(); }));
    });
  }

  double StoreRaw() {
    Forget(*packed_);
    return SecondsOf([&] {
      StoreOptions store;
      store.chunk_bytes = kChunkBytes;
      store.store_tail = false;
      auto writer = Require(PrefillWriter::Open(channel_, packed_, token_ids_, store));
      for (int layer = 0; layer < options_.layers; ++layer) {
        Require(writer->WriteLayer(layer, View(0, options_.tokens)));
      }
      Require(writer->Finish());
    });
  }

  double Encode() {
    std::vector<uint8_t> page(packed_->layer_layouts[0].page_bytes);
    return SecondsOf([&] {
      for (int layer = 0; layer < options_.layers; ++layer) {
        for (int64_t block = 0; block < blocks(); ++block) {
          Require(cpu::EncodePage(packed_->layer_layouts[layer], PageIdentity(),
                                  View(block * kPageTokens, kPageTokens), absl::MakeSpan(page)));
        }
      }
    });
  }

 private:
  int64_t blocks() const { return options_.tokens / kPageTokens; }

  KvView View(int64_t begin, int tokens) const {
    const uint16_t* k = values_.data() + begin * kKvHeads * kHeadDim;
    return NhdView(ValueType::kBf16, k, k + values_.size() / 2, tokens, kKvHeads, kHeadDim);
  }

  void EncodePlainPages() {
    for (int layer = 0; layer < options_.layers; ++layer) {
      for (int64_t block = 0; block < blocks(); ++block) {
        PageIdentity identity;
        identity.layer = layer;
        identity.first_token = block * kPageTokens;
        identity.spec_id = plain_->spec_id();
        std::vector<uint8_t>& page = pages_.emplace_back(plain_->layer_layouts[layer].page_bytes);
        Require(cpu::EncodePage(plain_->layer_layouts[layer], identity,
                                View(block * kPageTokens, kPageTokens), absl::MakeSpan(page)));
      }
    }
  }

  void Forget(const ResolvedSpec& spec) {
    Require(AdminClient(channel_).Remove(BlockKeys(spec.fingerprint, "", token_ids_)));
  }

  const Options options_;
  const std::shared_ptr<const ResolvedSpec> plain_;
  const std::shared_ptr<const ResolvedSpec> packed_;
  std::vector<uint16_t> values_;  // K of all tokens, then V; the same for every layer
  std::vector<int32_t> token_ids_;
  std::vector<std::vector<uint8_t>> pages_;
  std::shared_ptr<CacheChannel> channel_;
};

// Rounds of one measurement.
class Series {
 public:
  Series(std::string name, size_t bytes, std::function<double()> run)
      : name_(std::move(name)), bytes_(bytes), run_(std::move(run)) {}
  void Measure() { rates_.push_back(static_cast<double>(bytes_) / run_() / 1e9); }
  const std::string& name() const { return name_; }
  double median() const {
    std::vector<double> sorted = rates_;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
  void Print() const {
    if (rates_.empty()) return;
    const auto [low, high] = std::minmax_element(rates_.begin(), rates_.end());
    std::printf("%-18s %7.3f GB/s  (%.3f .. %.3f)\n", name_.c_str(), median(), *low, *high);
  }

 private:
  const std::string name_;
  const size_t bytes_;
  const std::function<double()> run_;
  std::vector<double> rates_;
};

void AddRoad(TransportBench* bench, const std::string& road, std::vector<Series>* series) {
  bench->StorePages();  // warm: windows, buffers, slabs, mappings
  bench->Fetch();
  series->emplace_back(road + ".store_pages", bench->page_bytes(),
                       [bench] { return bench->StorePages(); });
  series->emplace_back(road + ".fetch", bench->page_bytes(), [bench] { return bench->Fetch(); });
  series->emplace_back(road + ".store_raw", bench->raw_bytes(),
                       [bench] { return bench->StoreRaw(); });
}

class Medians {
 public:
  explicit Medians(const std::vector<Series>& series) : series_(series) {}
  double of(absl::string_view name) const {
    const auto found = std::find_if(series_.begin(), series_.end(),
                                    [&](const Series& one) { return one.name() == name; });
    return found->median();
  }
  void PrintRatio(absl::string_view above, absl::string_view below, const char* goal) const {
    std::printf("%-40s %.3f%s\n", absl::StrCat(above, " / ", below).c_str(), of(above) / of(below),
                goal);
  }

 private:
  const std::vector<Series>& series_;
};

void PrintRatios(const std::vector<Series>& series, bool on_gpu) {
  const Medians medians(series);
  medians.PrintRatio("grpc.fetch", "socket", " (goal 0.70)");
  medians.PrintRatio("grpc.store_pages", "socket", " (goal 0.70)");
  if (on_gpu) {
    medians.PrintRatio("grpc.store_raw", "grpc.store_pages", " (goal 0.90: encoding is hidden)");
    return;
  }
  const double series_limit =
      1.0 / (1.0 / medians.of("grpc.store_pages") + 1.0 / medians.of("encoder"));
  std::printf("%-40s %.3f (goal 0.80)\n", "grpc.store_raw / (1/(1/pages + 1/encoder))",
              medians.of("grpc.store_raw") / series_limit);
  medians.PrintRatio("shm.fetch", "grpc.fetch", " (goal 5)");
  medians.PrintRatio("shm.store_pages", "grpc.store_pages", " (goal 2)");
  medians.PrintRatio("shm.store_raw", "grpc.store_raw", "");
}

void Run(const Options& options) {
  const std::string socket_path = absl::StrCat("/tmp/turbokv-transport-bench.", getpid());
  const ServerProcess server(ConfigOf(options, socket_path));
  const bool on_gpu = options.gpu_memory_bytes > 0;
  TransportBench by_grpc(options, server.port(), Road::kGrpc);
  std::optional<TransportBench> by_shm;
  std::vector<Series> series;
  series.emplace_back("socket", by_grpc.page_bytes(),
                      [&] { return RawSocketSeconds(by_grpc.page_bytes(), kChunkBytes); });
  series.emplace_back("encoder", by_grpc.raw_bytes(), [&] { return by_grpc.Encode(); });
  AddRoad(&by_grpc, "grpc", &series);
  if (!on_gpu) AddRoad(&by_shm.emplace(options, server.port(), Road::kShm), "shm", &series);
  for (int round = 0; round < options.rounds; ++round) {
    for (Series& one : series) {
      if (options.only.empty() || options.only == one.name()) one.Measure();
    }
  }
  std::printf("%zu bytes of pages, %zu bytes of raw K/V, %zu KiB chunks, %d rounds, medians%s\n",
              by_grpc.page_bytes(), by_grpc.raw_bytes(), kChunkBytes >> 10, options.rounds,
              on_gpu ? ", blocks in GPU memory" : "");
  for (const Series& one : series) one.Print();
  if (options.only.empty()) PrintRatios(series, on_gpu);
}

}  // namespace
}  // namespace turbokv::bench

int main(int argc, char** argv) {
  turbokv::TuneHeapForBulk();
  turbokv::bench::Run(turbokv::bench::ParseOptions(argc, argv));
  return 0;
}
