#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/admin_client.h"
#include "client/cli/command.h"
#include "client/cli/progress.h"
#include "client/cli/remove.h"
#include "client/cli/synthetic_load.h"
#include "client/decode_reader.h"
#include "client/prefill_writer.h"
#include "kernels/format/head_groups.h"

namespace turbokv::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct BenchOptions {
  SyntheticShape shape;
  std::string policy{kDefaultPolicy};
  int sequences = 8;
  int threads = 1;
  bool no_tail = false;
  bool keep = false;
  ChannelOptions server;
  OutputOptions output;
};

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// One kind of operation, once for every sequence.
struct Phase {
  const char* name;
  double seconds = 0;
  std::atomic<int64_t> bytes{0};
  std::vector<double> latencies_ms;    // of each sequence
  std::vector<double> first_layer_ms;  // of each sequence; fetch only
};

class Bench {
 public:
  Bench(const BenchOptions& options, std::shared_ptr<CacheChannel> channel,
        std::shared_ptr<const ResolvedSpec> spec)
      : options_(options),
        channel_(std::move(channel)),
        spec_(std::move(spec)),
        load_(options.shape) {}

  absl::Status Run() {
    TURBOKV_RETURN_IF_ERROR(RunPhase(&store_, [this](int i) { return Store(i); }));
    TURBOKV_RETURN_IF_ERROR(RunPhase(&lookup_, [this](int i) { return Lookup(i); }));
    TURBOKV_RETURN_IF_ERROR(RunPhase(&fetch_, [this](int i) { return Fetch(i); }));
    return absl::OkStatus();
  }

  absl::Status RemoveAll() {
    AdminClient admin(channel_);
    for (int i = 0; i < options_.sequences; ++i) {
      TURBOKV_RETURN_IF_ERROR(RemoveSequence(*spec_, "", load_.TokenIds(i), &admin).status());
    }
    return absl::OkStatus();
  }

  const Phase& store() const { return store_; }
  const Phase& lookup() const { return lookup_; }
  const Phase& fetch() const { return fetch_; }
  int64_t raw_bytes() const { return raw_bytes_; }
  int64_t kept_bytes() const { return kept_bytes_; }
  int64_t missed_blocks() const { return missed_blocks_; }

 private:
  // Runs `operation` for every sequence on the configured number of threads; the first error ends
  // the phase.
  absl::Status RunPhase(Phase* phase, const std::function<absl::Status(int)>& operation) {
    Progress progress(phase->name, Progress::Unit::kItems, options_.sequences,
                      options_.output.progress);
    phase->latencies_ms.resize(options_.sequences);
    phase->first_layer_ms.resize(options_.sequences);
    std::vector<absl::Status> errors(options_.threads);
    std::atomic<int> next{0};
    std::atomic<bool> failed{false};
    std::vector<std::thread> threads;
    const Clock::time_point start = Clock::now();
    for (int thread = 0; thread < options_.threads; ++thread) {
      threads.emplace_back([&, thread] {
        for (int i = next++; i < options_.sequences && !failed; i = next++) {
          const Clock::time_point begin = Clock::now();
          errors[thread] = operation(i);
          if (!errors[thread].ok()) failed = true;
          phase->latencies_ms[i] = MillisecondsSince(begin);
          progress.Add(1);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    phase->seconds = MillisecondsSince(start) / 1e3;
    for (const absl::Status& error : errors) TURBOKV_RETURN_IF_ERROR(error);
    return absl::OkStatus();
  }

  absl::Status Store(int sequence) {
    StoreOptions store;
    store.store_tail = !options_.no_tail;
    TURBOKV_ASSIGN_OR_RETURN(std::unique_ptr<PrefillWriter> writer,
                             PrefillWriter::Open(channel_, spec_, load_.TokenIds(sequence), store));
    for (int layer = 0; layer < options_.shape.layers; ++layer) {
      TURBOKV_RETURN_IF_ERROR(writer->WriteLayer(layer, load_.values()));
    }
    TURBOKV_ASSIGN_OR_RETURN(const StoreResult result, writer->Finish());
    store_.bytes += result.sent_bytes;
    raw_bytes_ += Bf16BlockBytes(result.stored_blocks);
    kept_bytes_ += result.kept_bytes;
    return absl::OkStatus();
  }

  int64_t Bf16BlockBytes(int64_t blocks) const {
    return blocks * kPageTokens * options_.shape.layers *
           static_cast<int64_t>(spec_->raw_token_bytes());
  }

  absl::Status Lookup(int sequence) {
    DecodeReader reader(channel_, spec_);
    return reader.Lookup(load_.TokenIds(sequence), {}).status();
  }

  absl::Status Fetch(int sequence) {
    DecodeReader reader(channel_, spec_);
    const Clock::time_point start = Clock::now();
    TURBOKV_ASSIGN_OR_RETURN(const Match match, reader.Lookup(load_.TokenIds(sequence), {}));
    missed_blocks_ += options_.shape.tokens / kPageTokens - match.blocks;
    if (match.lease_id == 0) return absl::OkStatus();  // evicted by the sequences after it
    TURBOKV_RETURN_IF_ERROR(reader.Fetch({}, [&](const FetchedLayer& layer) {
      if (layer.layer == 0) fetch_.first_layer_ms[sequence] = MillisecondsSince(start);
      return absl::OkStatus();
    }));
    fetch_.bytes += reader.fetched_bytes();
    return absl::OkStatus();
  }

  const BenchOptions& options_;
  const std::shared_ptr<CacheChannel> channel_;
  const std::shared_ptr<const ResolvedSpec> spec_;
  const SyntheticLoad load_;
  Phase store_{"store"}, lookup_{"lookup"}, fetch_{"fetch"};
  std::atomic<int64_t> raw_bytes_{0}, kept_bytes_{0}, missed_blocks_{0};
};

// The smallest value that a `share` of the values does not exceed.
double Percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  const size_t rank = static_cast<size_t>(std::ceil(share * values.size()));
  return values[rank == 0 ? 0 : rank - 1];
}

Json LatencyJson(const std::vector<double>& milliseconds) {
  return {{"p50", Percentile(milliseconds, 0.5)},
          {"p90", Percentile(milliseconds, 0.9)},
          {"p99", Percentile(milliseconds, 0.99)},
          {"max", Percentile(milliseconds, 1.0)}};
}

Json PhaseJson(const Phase& phase, int64_t tokens) {
  Json json = {{"seconds", phase.seconds},
               {"tokens_per_second", tokens / phase.seconds},
               {"latency_ms", LatencyJson(phase.latencies_ms)}};
  if (phase.bytes > 0) {
    json["bytes"] = phase.bytes.load();
    json["bytes_per_second"] = phase.bytes / phase.seconds;
  }
  return json;
}

void PrintPhase(const Phase& phase, int64_t tokens) {
  const std::string rate =
      phase.bytes > 0 ? HumanBytes(phase.bytes / phase.seconds) + "/s" : std::string("-");
  absl::PrintF("%-8s%14s%12.0f tok/s%10.2f%10.2f%10.2f%10.2f\n", phase.name, rate,
               tokens / phase.seconds, Percentile(phase.latencies_ms, 0.5),
               Percentile(phase.latencies_ms, 0.9), Percentile(phase.latencies_ms, 0.99),
               Percentile(phase.latencies_ms, 1.0));
}

void PrintReport(const BenchOptions& options, const ResolvedSpec& spec, const Bench& bench) {
  const int64_t tokens = int64_t{options.sequences} * options.shape.tokens;
  const double ratio =
      bench.kept_bytes() > 0 ? static_cast<double>(bench.raw_bytes()) / bench.kept_bytes() : 0;
  if (options.output.json) {
    Json document = {{"sequences", options.sequences},
                     {"tokens_per_sequence", options.shape.tokens},
                     {"threads", options.threads},
                     {"policy", CanonicalPolicy(spec.layer_codecs)},
                     {"compression_ratio", ratio},
                     {"missed_blocks", bench.missed_blocks()},
                     {"store", PhaseJson(bench.store(), tokens)},
                     {"lookup", PhaseJson(bench.lookup(), tokens)},
                     {"fetch", PhaseJson(bench.fetch(), tokens)}};
    document["fetch"]["first_layer_ms"] = LatencyJson(bench.fetch().first_layer_ms);
    PrintJson(document);
    return;
  }
  absl::PrintF("%d sequences of %d tokens on %d threads, policy %s, %.2f times smaller\n",
               options.sequences, options.shape.tokens, options.threads,
               CanonicalPolicy(spec.layer_codecs), ratio);
  absl::PrintF("%-8s%14s%18s%10s%10s%10s%10s\n", "", "throughput", "", "p50 ms", "p90 ms", "p99 ms",
               "max ms");
  for (const Phase* phase : {&bench.store(), &bench.lookup(), &bench.fetch()}) {
    PrintPhase(*phase, tokens);
  }
  absl::PrintF("first layer after %.2f ms (p50), %.2f ms (p99)\n",
               Percentile(bench.fetch().first_layer_ms, 0.5),
               Percentile(bench.fetch().first_layer_ms, 0.99));
  if (bench.missed_blocks() > 0) {
    absl::PrintF("%d blocks were evicted before they were fetched\n", bench.missed_blocks());
  }
}

absl::Status RunBench(const BenchOptions& options) {
  CacheSpec cache_spec;
  cache_spec.model_id = absl::StrCat("turbokv-bench-", options.shape.seed);
  cache_spec.layers = options.shape.layers;
  cache_spec.kv_heads = options.shape.kv_heads;
  cache_spec.head_dim = options.shape.head_dim;
  cache_spec.policy = options.policy;
  TURBOKV_ASSIGN_OR_RETURN(ResolvedSpec resolved, ResolveSpec(cache_spec));
  const auto spec = std::make_shared<const ResolvedSpec>(std::move(resolved));
  TURBOKV_RETURN_IF_ERROR(SyntheticLoad::Check(options.shape));
  TURBOKV_ASSIGN_OR_RETURN(std::shared_ptr<CacheChannel> channel,
                           CacheChannel::Connect(options.server));
  Bench bench(options, std::move(channel), spec);
  const absl::Status status = bench.Run();
  // What was stored goes even after a failure, whose cause is what is reported.
  const absl::Status removed = options.keep ? absl::OkStatus() : bench.RemoveAll();
  TURBOKV_RETURN_IF_ERROR(status);
  TURBOKV_RETURN_IF_ERROR(removed);
  PrintReport(options, *spec, bench);
  return absl::OkStatus();
}

}  // namespace

void AddBench(CLI::App* app, Action* action) {
  CLI::App* command = app->add_subcommand(
      "bench", "Store, look up and fetch synthetic sequences; report throughput and latency");
  auto options = std::make_shared<BenchOptions>();
  const auto add_number = [&](const char* name, int* value, const char* help, int limit) {
    command->add_option(name, *value, help)->check(CLI::Range(1, limit))->capture_default_str();
  };
  add_number("--sequences", &options->sequences, "Sequences to store and fetch", 1'000'000);
  add_number("--tokens", &options->shape.tokens, "Tokens of each", 1 << 24);
  add_number("--threads", &options->threads, "Sequences in flight at a time", 1024);
  add_number("--layers", &options->shape.layers, "Layers of the model", kMaxLayers);
  add_number("--kv-heads", &options->shape.kv_heads, "KV heads", kMaxKvHeads);
  add_number("--head-dim", &options->shape.head_dim, "Channels of a head", kMaxHeadDim);
  AddPolicyOption(command, &options->policy, "Codecs, e.g. bf16 or turbo4")->capture_default_str();
  command->add_option("--seed", options->shape.seed, "Seed of the values and token ids")
      ->capture_default_str();
  command->add_flag("--no-tail", options->no_tail, "Store full blocks of 128 tokens only");
  command->add_flag("--keep", options->keep, "Leave the sequences in the cache afterwards");
  AddServerOptions(command, &options->server);
  AddOutputOptions(command, &options->output);
  command->footer(
      "Values are bf16 Gaussians; every layer of a sequence sends the same ones.\n"
      "Example:\n"
      "  turbokv bench --sequences 16 --tokens 4096 --layers 32 --kv-heads 8 --policy turbo4");
  command->callback([options, action] { *action = [options] { return RunBench(*options); }; });
}

}  // namespace turbokv::cli
