// Goodput of the service on loopback beside a raw socket's, in one run.
//
//   transport_bench [--rounds N] [--layers N] [--tokens N] [--only NAME] [--smoke]
//
// The server is a process of its own. Every round measures each of:
//   socket       raw TCP, 256 KiB chunks, the receiver looks at nothing
//   fetch        bf16 pages, verified by checksum on both sides
//   store_pages  bf16 pages as they are (no encoding), verified by the server
//   encoder      the default codec on one thread, without any service
//   store_raw    raw bf16 K/V, encoded by the server with the default codec
// and the medians are compared: goodput is bytes of pages (or of raw K/V) by wall time, from
// opening the call to its end.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/client/raw_socket.h"
#include "client/admin_client.h"
#include "client/decode_reader.h"
#include "client/prefill_writer.h"
#include "kernels/cpu/codec.h"
#include "kernels/format/small_floats.h"
#include "server/rpc/server.h"

namespace turbokv::bench {
namespace {

constexpr size_t kChunkBytes = size_t{256} << 10;
constexpr int kKvHeads = 8;
constexpr int kHeadDim = 128;

struct Options {
  int rounds = 7;
  int layers = 8;
  int tokens = 2048;
  std::string only;
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&] { return i + 1 < argc ? std::atoi(argv[++i]) : 0; };
    if (flag == "--smoke") {
      options = {1, 2, 256, ""};
    } else if (flag == "--rounds") {
      options.rounds = std::max(1, value());
    } else if (flag == "--layers") {
      options.layers = std::max(1, value());
    } else if (flag == "--only" && i + 1 < argc) {
      options.only = argv[++i];
    } else if (flag == "--tokens") {
      options.tokens = std::max(kPageTokens, value() / kPageTokens * kPageTokens);
    }
  }
  return options;
}

template <typename T>
T Require(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "transport_bench: %s\n", value.status().ToString().c_str());
  std::exit(1);
}

void Require(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "transport_bench: %s\n", status.ToString().c_str());
  std::exit(1);
}

double SecondsOf(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// turbokvd in a child process, forked before this one uses gRPC.
class ServerProcess {
 public:
  ServerProcess() {
    int port_pipe[2], life_pipe[2];
    if (pipe(port_pipe) != 0 || pipe(life_pipe) != 0) std::exit(1);
    child_ = fork();
    if (child_ == 0) {
      close(life_pipe[1]);
      Serve(port_pipe[1], life_pipe[0]);
    }
    close(life_pipe[0]);
    life_ = life_pipe[1];
    if (read(port_pipe[0], &port_, sizeof(port_)) != sizeof(port_)) std::exit(1);
  }

  ~ServerProcess() {
    close(life_);
    waitpid(child_, nullptr, 0);
  }

  int port() const { return port_; }

 private:
  [[noreturn]] static void Serve(int port_fd, int life_fd) {
    ServerConfig config;
    config.listen = "127.0.0.1:0";
    config.metrics_listen = "";
    config.memory_bytes = size_t{2} << 30;
    config.slab_bytes = size_t{64} << 20;
    const std::unique_ptr<Server> server = Require(Server::Start(config));
    const int port = server->port();
    if (write(port_fd, &port, sizeof(port)) != sizeof(port)) std::exit(1);
    char end;
    [[maybe_unused]] const ssize_t ended = read(life_fd, &end, 1);  // the parent has gone
    server->Drain(absl::ZeroDuration());
    _exit(0);
  }

  pid_t child_ = 0;
  int life_ = 0;
  int port_ = 0;
};

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
  TransportBench(const Options& options, int port)
      : options_(options),
        plain_(SpecWith(options, "bf16")),
        packed_(SpecWith(options, std::string(kDefaultPolicy))),
        values_(2 * size_t{1} * options.tokens * kKvHeads * kHeadDim),
        token_ids_(options.tokens) {
    ChannelOptions channel;
    channel.address = absl::StrCat("127.0.0.1:", port);
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
  Series(const char* name, size_t bytes) : name_(name), bytes_(bytes) {}
  void Add(double seconds) { rates_.push_back(static_cast<double>(bytes_) / seconds / 1e9); }
  absl::string_view name() const { return name_; }
  double median() const {
    std::vector<double> sorted = rates_;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
  void Print() const {
    if (rates_.empty()) return;
    const auto [low, high] = std::minmax_element(rates_.begin(), rates_.end());
    std::printf("%-12s %7.3f GB/s  (%.3f .. %.3f)\n", name_, median(), *low, *high);
  }

 private:
  const char* name_;
  size_t bytes_;
  std::vector<double> rates_;
};

void Run(const Options& options) {
  const ServerProcess server;
  TransportBench bench(options, server.port());
  Series socket("socket", bench.page_bytes());
  Series store_pages("store_pages", bench.page_bytes());
  Series fetch("fetch", bench.page_bytes());
  Series encoder("encoder", bench.raw_bytes());
  Series store_raw("store_raw", bench.raw_bytes());
  bench.StorePages();  // warm: windows, buffers, slabs
  bench.Fetch();
  const auto measure = [&](Series* series, const std::function<double()>& run) {
    if (options.only.empty() || options.only == series->name()) series->Add(run());
  };
  for (int round = 0; round < options.rounds; ++round) {
    measure(&socket, [&] { return RawSocketSeconds(bench.page_bytes(), kChunkBytes); });
    measure(&store_pages, [&] { return bench.StorePages(); });
    measure(&fetch, [&] { return bench.Fetch(); });
    measure(&encoder, [&] { return bench.Encode(); });
    measure(&store_raw, [&] { return bench.StoreRaw(); });
  }
  std::printf("%zu bytes of pages, %zu bytes of raw K/V, %zu KiB chunks, %d rounds, medians\n",
              bench.page_bytes(), bench.raw_bytes(), kChunkBytes >> 10, options.rounds);
  for (const Series* series : {&socket, &store_pages, &fetch, &encoder, &store_raw}) {
    series->Print();
  }
  if (!options.only.empty()) return;
  const double series_limit = 1.0 / (1.0 / store_pages.median() + 1.0 / encoder.median());
  std::printf("fetch / socket                              %.3f (goal 0.70)\n",
              fetch.median() / socket.median());
  std::printf("store_pages / socket                        %.3f (goal 0.70)\n",
              store_pages.median() / socket.median());
  std::printf("store_raw / (1/(1/store_pages + 1/encoder)) %.3f (goal 0.80)\n",
              store_raw.median() / series_limit);
}

}  // namespace
}  // namespace turbokv::bench

int main(int argc, char** argv) {
  turbokv::TuneHeapForBulk();
  turbokv::bench::Run(turbokv::bench::ParseOptions(argc, argv));
  return 0;
}
