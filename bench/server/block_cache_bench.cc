// The index at a million blocks: lookups of a 1M-token prompt, tags, stores with and without
// eviction. bench/README.md says how to read the numbers. `--smoke` shrinks everything.
#include <benchmark/benchmark.h>
#include <openssl/sha.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "server/index/block_cache.h"
#include "server/index/key_tagger.h"

namespace turbokv {
namespace {

using Clock = std::chrono::steady_clock;

bool smoke = false;
int64_t BlockCount() { return smoke ? 20'000 : 1'000'000; }
int64_t PromptBlocks() { return smoke ? 512 : 8192; }

Digest KeyOf(int64_t number) {
  Digest key;
  SHA256(reinterpret_cast<const uint8_t*>(&number), sizeof(number), key.data());
  return key;
}

// Extents of the least size: the index does not care, and a million fit anywhere.
std::shared_ptr<const EntryGeometry> SmallGeometry() {
  auto geometry = std::make_shared<EntryGeometry>();
  geometry->page_offsets_bytes = {0, 128};
  return geometry;
}

class FilledCache {
 public:
  FilledCache() {
    BlockCacheOptions options;
    options.budget_bytes = static_cast<size_t>(BlockCount()) * 128 + (size_t{2} << 20);
    cache_ = *BlockCache::Create(options, nullptr);
    keys_.reserve(BlockCount());
    for (int64_t i = 0; i < BlockCount(); ++i) keys_.push_back(KeyOf(i));
    for (int64_t i = 0; i < BlockCount(); i += PromptBlocks()) {
      Store({keys_.data() + i, static_cast<size_t>(std::min(PromptBlocks(), BlockCount() - i))});
    }
  }
  static FilledCache& Get() {
    static auto* cache = new FilledCache();
    return *cache;
  }

  int64_t Store(absl::Span<const Digest> keys) {
    std::vector<ReserveRequest> requests;
    requests.reserve(keys.size());
    for (const Digest& key : keys) requests.push_back({key, geometry_, kPageTokens});
    auto pending = cache_->Reserve(owner_, requests);
    return pending.ok() ? cache_->Publish(*std::move(pending)) : -1;
  }
  LookupOutcome Lookup(absl::Span<const Digest> keys) {
    return *cache_->Lookup(owner_, geometry_->spec_fingerprint, keys, nullptr, absl::Minutes(1));
  }
  void Release(uint64_t lease_id) { cache_->Release(owner_, lease_id).IgnoreError(); }

  const std::vector<Digest>& keys() const { return keys_; }
  CacheUsage Usage() const { return cache_->Usage(); }

 private:
  const ClientIdentity owner_{};
  const std::shared_ptr<const EntryGeometry> geometry_ = SmallGeometry();
  std::unique_ptr<BlockCache> cache_;
  std::vector<Digest> keys_;
};

double Quantile(std::vector<double>* values, double share) {
  if (values->empty()) return 0;
  const size_t at = static_cast<size_t>(share * static_cast<double>(values->size() - 1));
  std::nth_element(values->begin(), values->begin() + static_cast<ptrdiff_t>(at), values->end());
  return (*values)[at];
}

double MicrosecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

double ThreadCpuMicroseconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

// A prompt's blocks: as they were stored, or drawn from all over the index (no two neighbours in
// memory or in age: the worst case).
std::vector<Digest> Prompt(const FilledCache& cache, bool scattered, std::mt19937_64* random) {
  const std::vector<Digest>& keys = cache.keys();
  std::vector<Digest> prompt;
  const size_t runs = keys.size() / PromptBlocks();
  const size_t first = (*random)() % runs * PromptBlocks();
  for (int64_t i = 0; i < PromptBlocks(); ++i) {
    prompt.push_back(scattered ? keys[(*random)() % keys.size()] : keys[first + i]);
  }
  return prompt;
}

void BM_Lookup(benchmark::State& state) {
  FilledCache& cache = FilledCache::Get();
  std::mt19937_64 random(1);
  // Of processor time too: on a shared machine, wall-clock quantiles show the other processes.
  std::vector<double> lookup_us, lookup_cpu_us, release_us;
  for (auto _ : state) {
    state.PauseTiming();
    const std::vector<Digest> prompt = Prompt(cache, state.range(0) != 0, &random);
    state.ResumeTiming();
    const double cpu_start_us = ThreadCpuMicroseconds();
    const Clock::time_point start = Clock::now();
    const LookupOutcome found = cache.Lookup(prompt);
    lookup_us.push_back(MicrosecondsSince(start));
    lookup_cpu_us.push_back(ThreadCpuMicroseconds() - cpu_start_us);
    state.PauseTiming();
    if (found.matched_blocks != PromptBlocks()) state.SkipWithError("blocks are missing");
    const Clock::time_point release_start = Clock::now();
    cache.Release(found.lease_id);
    release_us.push_back(MicrosecondsSince(release_start));
    state.ResumeTiming();
  }
  state.counters["lookup_p50_us"] = Quantile(&lookup_us, 0.5);
  state.counters["lookup_p99_us"] = Quantile(&lookup_us, 0.99);
  state.counters["lookup_cpu_p99_us"] = Quantile(&lookup_cpu_us, 0.99);
  state.counters["release_p50_us"] = Quantile(&release_us, 0.5);
  state.counters["release_p99_us"] = Quantile(&release_us, 0.99);
  const CacheUsage usage = cache.Usage();
  state.counters["blocks"] = static_cast<double>(usage.blocks);
  state.counters["index_bytes_per_block"] =
      static_cast<double>(usage.index_bytes) / static_cast<double>(usage.blocks);
  state.SetLabel(state.range(0) != 0 ? "scattered" : "as stored");
}
BENCHMARK(BM_Lookup)->Arg(0)->Arg(1)->Unit(benchmark::kMicrosecond);

void BM_LookupOfNothing(benchmark::State& state) {
  FilledCache& cache = FilledCache::Get();
  std::vector<Digest> prompt;
  for (int64_t i = 0; i < PromptBlocks(); ++i) prompt.push_back(KeyOf(-1 - i));
  for (auto _ : state) benchmark::DoNotOptimize(cache.Lookup(prompt).matched_blocks);
}
BENCHMARK(BM_LookupOfNothing)->Unit(benchmark::kMicrosecond);

void BM_Tags(benchmark::State& state) {
  const KeyTagger tagger = *KeyTagger::Create();
  std::vector<Digest> keys;
  for (int64_t i = 0; i < PromptBlocks(); ++i) keys.push_back(KeyOf(i));
  for (auto _ : state) benchmark::DoNotOptimize(tagger.Tags("tenant", keys)->data());
  state.counters["keys_per_second"] = benchmark::Counter(
      static_cast<double>(PromptBlocks()), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_Tags)->Unit(benchmark::kMicrosecond);

// Stores of new prompts into the full index: every block evicts one.
void BM_StoreWithEviction(benchmark::State& state) {
  FilledCache& cache = FilledCache::Get();
  static int64_t next = BlockCount();  // new keys at every call
  std::vector<double> store_us;
  for (auto _ : state) {
    state.PauseTiming();
    std::vector<Digest> prompt;
    for (int64_t i = 0; i < PromptBlocks(); ++i) prompt.push_back(KeyOf(next++));
    state.ResumeTiming();
    const Clock::time_point start = Clock::now();
    if (cache.Store(prompt) != PromptBlocks()) state.SkipWithError("blocks were not stored");
    store_us.push_back(MicrosecondsSince(start));
  }
  state.counters["store_p50_us"] = Quantile(&store_us, 0.5);
  state.counters["store_p99_us"] = Quantile(&store_us, 0.99);
  state.counters["blocks_per_second"] = benchmark::Counter(
      static_cast<double>(PromptBlocks()), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_StoreWithEviction)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace turbokv

int main(int argc, char** argv) {
  const auto is_smoke = [](const char* argument) { return std::strcmp(argument, "--smoke") == 0; };
  char** const end = std::remove_if(argv + 1, argv + argc, is_smoke);
  turbokv::smoke = end != argv + argc;
  argc = static_cast<int>(end - argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
