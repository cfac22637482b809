#include "server/telemetry/metrics_impl.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace turbokv {
namespace {

struct LatencyName {
  Latency latency;
  absl::string_view name;
  absl::string_view help;
};
constexpr std::array<LatencyName, 5> kLatencyNames = {{
    {Latency::kEncodePage, "turbokv_encode_page_duration_seconds",
     "Time to encode one page on one thread"},
    {Latency::kStore, "turbokv_store_duration_seconds",
     "Time from a store's first message to its answer"},
    {Latency::kLookup, "turbokv_lookup_duration_seconds", "Time to answer a lookup"},
    {Latency::kFetch, "turbokv_fetch_duration_seconds",
     "Time from a fetch's request to its last byte handed to the transport"},
    {Latency::kTimeToFirstLayer, "turbokv_fetch_first_layer_duration_seconds",
     "Time from a fetch's request to its first layer handed to the transport"},
}};

absl::string_view TensorName(PageTensor tensor) { return tensor == PageTensor::kK ? "k" : "v"; }

MetricLabels CodecLabels(PageTensor tensor, Codec codec) {
  return {{"tensor", std::string(TensorName(tensor))}, {"codec", std::string(CodecName(codec))}};
}

absl::string_view RpcCodeName(size_t code) {
  constexpr std::array<absl::string_view, kStatusCodes> kNames = {"OK",
                                                                  "CANCELLED",
                                                                  "UNKNOWN",
                                                                  "INVALID_ARGUMENT",
                                                                  "DEADLINE_EXCEEDED",
                                                                  "NOT_FOUND",
                                                                  "ALREADY_EXISTS",
                                                                  "PERMISSION_DENIED",
                                                                  "RESOURCE_EXHAUSTED",
                                                                  "FAILED_PRECONDITION",
                                                                  "ABORTED",
                                                                  "OUT_OF_RANGE",
                                                                  "UNIMPLEMENTED",
                                                                  "INTERNAL",
                                                                  "UNAVAILABLE",
                                                                  "DATA_LOSS",
                                                                  "UNAUTHENTICATED"};
  return kNames[code];
}

double Value(const std::atomic<int64_t>& counter) {
  return static_cast<double>(counter.load(std::memory_order_relaxed));
}

}  // namespace

void MetricValues::SetUsageSource(std::function<CacheUsage()> source) {
  const MutexLock lock(&mutex_);
  usage_source_ = std::move(source);
}

void MetricValues::SetShareSource(std::function<ShareUsage()> source) {
  const MutexLock lock(&mutex_);
  share_source_ = std::move(source);
}

void MetricValues::CountRpc(absl::string_view method, absl::StatusCode code) {
  size_t row = 0;
  while (row + 1 < kRpcMethods.size() && method != kRpcMethods[row]) ++row;
  size_t column = static_cast<size_t>(code);
  if (column >= kStatusCodes) column = static_cast<size_t>(absl::StatusCode::kUnknown);
  rpcs_[row][column].fetch_add(1, std::memory_order_relaxed);
}

std::vector<prometheus::MetricFamily> MetricValues::Collect() const {
  Exposition out;
  out.GaugeFamily("turbokv_build_info", "Always 1; the version is the label");
  out.AddGauge({{"version", TURBOKV_VERSION}}, 1);
  CollectBytes(&out);
  CollectCodecs(&out);
  CollectLatencies(&out);
  CollectLookups(&out);
  CollectMoves(&out);
  CollectNccl(&out);
  CollectUsage(&out);
  CollectRoads(&out);
  CollectRpcs(&out);
  return out.Take();
}

void MetricValues::CollectBytes(Exposition* out) const {
  out->Counter("turbokv_received_bytes_total", "Bytes of K/V values or pages received by stores",
               Value(received_bytes));
  out->Counter("turbokv_fetched_bytes_total", "Bytes of pages sent by fetches",
               Value(fetched_bytes));
  out->Counter("turbokv_damaged_pages_total",
               "Pages that failed their checksum on the way out; should be zero",
               Value(damaged_pages));
  out->Gauge("turbokv_active_stores", "Store streams under way", Value(active_stores));
}

// One series a tensor and codec, from the start, for every codec that exists.
void MetricValues::CollectCodecs(Exposition* out) const {
  const auto for_each = [this](const auto& add) {
    for (const PageTensor tensor : {PageTensor::kK, PageTensor::kV}) {
      for (const CodecTraits& traits : AllCodecs()) {
        if (!traits.implemented) continue;
        const auto& values =
            codecs_[static_cast<size_t>(tensor)][static_cast<size_t>(traits.codec)];
        add(CodecLabels(tensor, traits.codec), values);
      }
    }
  };
  out->CounterFamily("turbokv_pages_total", "Pages kept");
  for_each([&](MetricLabels labels, const CodecValues& values) {
    out->AddCounter(std::move(labels), Value(values.pages));
  });
  out->CounterFamily("turbokv_raw_bytes_total",
                     "Bytes of the K or V values that pages were kept for");
  for_each([&](MetricLabels labels, const CodecValues& values) {
    out->AddCounter(std::move(labels), Value(values.raw_bytes));
  });
  out->CounterFamily("turbokv_kept_bytes_total",
                     "Bytes of pages kept, headers included, split between K and V");
  for_each([&](MetricLabels labels, const CodecValues& values) {
    out->AddCounter(std::move(labels), Value(values.kept_bytes));
  });
  out->GaugeFamily("turbokv_compression_ratio",
                   "Raw bytes over kept bytes since the start; 0 before the first page");
  for_each([&](MetricLabels labels, const CodecValues& values) {
    const double kept_bytes = Value(values.kept_bytes);
    out->AddGauge(std::move(labels), kept_bytes > 0 ? Value(values.raw_bytes) / kept_bytes : 0);
  });
  out->HistogramFamily("turbokv_page_relative_mse",
                       "Mean squared error over mean square of the values, of sampled pages");
  for_each([&](MetricLabels labels, const CodecValues& values) {
    out->AddHistogram(std::move(labels), values.distortion.Collect());
  });
}

void MetricValues::CollectLatencies(Exposition* out) const {
  for (const LatencyName& name : kLatencyNames) {
    out->HistogramFamily(name.name, name.help);
    out->AddHistogram({}, latencies_[static_cast<size_t>(name.latency)].Collect());
  }
}

void MetricValues::CollectLookups(Exposition* out) const {
  out->Counter("turbokv_hit_tokens_total", "Tokens of the blocks that lookups found",
               Value(hit_tokens));
  out->Counter("turbokv_missed_tokens_total", "Tokens of the blocks that lookups did not find",
               Value(missed_tokens));
  out->Counter("turbokv_hit_bytes_total", "Kept bytes of the blocks that lookups found",
               Value(hit_bytes));
  out->Counter(
      "turbokv_missed_bytes_total",
      "Bytes that the missed blocks would take; 0 for a cache spec that nothing is kept of",
      Value(missed_bytes));
  out->Counter("turbokv_evicted_blocks_total", "Blocks evicted to make room",
               Value(evicted_blocks));
  out->Counter("turbokv_evicted_bytes_total", "Bytes of the blocks and tails evicted",
               Value(evicted_bytes));
}

void MetricValues::CollectMoves(Exposition* out) const {
  constexpr std::array<const char*, 2> kDirections = {"demoted", "promoted"};
  out->CounterFamily("turbokv_moved_blocks_total",
                     "Blocks and tails moved from a device's memory to host memory, or back");
  for (size_t i = 0; i < moves_.size(); ++i) {
    out->AddCounter({{"direction", kDirections[i]}}, Value(moves_[i].blocks));
  }
  out->CounterFamily("turbokv_moved_bytes_total", "Bytes of the blocks and tails moved");
  for (size_t i = 0; i < moves_.size(); ++i) {
    out->AddCounter({{"direction", kDirections[i]}}, Value(moves_[i].bytes));
  }
}

void MetricValues::CollectNccl(Exposition* out) const {
  constexpr std::array<const char*, 2> kDirections = {"sent", "received"};
  out->CounterFamily("turbokv_nccl_bytes_total", "Bytes of K/V values or pages over NCCL channels");
  for (size_t i = 0; i < nccl_bytes_.size(); ++i) {
    out->AddCounter({{"direction", kDirections[i]}}, Value(nccl_bytes_[i]));
  }
  out->Gauge("turbokv_nccl_channels", "NCCL channels that are open or being connected",
             Value(nccl_channels));
  out->Counter("turbokv_nccl_aborted_channels_total",
               "NCCL channels that ended otherwise than by their worker closing them",
               Value(nccl_aborts));
}

void MetricValues::CollectUsage(Exposition* out) const {
  CacheUsage usage;
  {
    const MutexLock lock(&mutex_);
    if (usage_source_ != nullptr) usage = usage_source_();
  }
  if (usage.pools.empty()) usage.pools.emplace_back();  // every series from the start
  const auto gauge = [out](absl::string_view name, absl::string_view help, auto value) {
    out->Gauge(name, help, static_cast<double>(value));
  };
  gauge("turbokv_pool_budget_bytes", "Memory that pages may take", usage.budget_bytes);
  gauge("turbokv_pool_used_bytes", "Memory of extents in use", usage.used_bytes);
  gauge("turbokv_pool_reserved_bytes", "Memory of slabs that belong to a size class",
        usage.reserved_bytes);
  const auto by_pool = [&](absl::string_view name, absl::string_view help, const auto& value) {
    out->GaugeFamily(name, help);
    for (size_t i = 0; i < usage.pools.size(); ++i) {
      const std::string pool = i == 0 ? "host" : absl::StrCat("device", i - 1);
      out->AddGauge({{"pool", pool}}, static_cast<double>(value(usage.pools[i])));
    }
  };
  by_pool("turbokv_pool_blocks", "Blocks that lookups can find, by pool",
          [](const PoolUsage& pool) { return pool.blocks; });
  by_pool("turbokv_pool_free_bytes", "Memory of the pool that no extent takes",
          [](const PoolUsage& pool) { return pool.budget_bytes - pool.used_bytes; });
  by_pool("turbokv_pool_healthy", "1, or 0 when the pool was lost with its device",
          [](const PoolUsage& pool) { return pool.lost ? 0 : 1; });
  gauge("turbokv_index_bytes", "Memory of the index, beside the pool", usage.index_bytes);
  gauge("turbokv_blocks", "Blocks that lookups can find", usage.blocks);
  gauge("turbokv_tails", "Tails that lookups can find", usage.tails);
  gauge("turbokv_pending_entries", "Blocks and tails reserved by stores under way",
        usage.pending_entries);
  gauge("turbokv_leases", "Leases held", usage.leases);
  gauge("turbokv_leased_blocks", "Blocks that a lease or a fetch keeps from eviction",
        usage.leased_blocks);
}

void MetricValues::CollectRoads(Exposition* out) const {
  constexpr std::array<const char*, 2> kCalls = {"store", "lookup"};
  constexpr std::array<const char*, 4> kRoads = {"grpc", "shm", "cuda", "nccl"};
  out->CounterFamily("turbokv_road_calls_total",
                     "Stores and lookups by the way their pages or values travel");
  for (size_t call = 0; call < kCalls.size(); ++call) {
    for (size_t road = 0; road < kRoads.size(); ++road) {
      out->AddCounter({{"call", kCalls[call]}, {"road", kRoads[road]}}, Value(roads_[call][road]));
    }
  }
  ShareUsage usage;
  {
    const MutexLock lock(&mutex_);
    if (share_source_ != nullptr) usage = share_source_();
  }
  out->Gauge("turbokv_share_sessions", "Processes connected to the share socket",
             static_cast<double>(usage.sessions));
  out->Gauge("turbokv_share_staging_bytes", "Staging memory given to processes",
             static_cast<double>(usage.staging_bytes));
}

void MetricValues::CollectRpcs(Exposition* out) const {
  out->CounterFamily("turbokv_rpcs_total", "Finished calls by method and status code");
  for (size_t method = 0; method < kRpcMethods.size(); ++method) {
    for (size_t code = 0; code < kStatusCodes; ++code) {
      out->AddCounter(
          {{"method", std::string(kRpcMethods[method])}, {"code", std::string(RpcCodeName(code))}},
          Value(rpcs_[method][code]));
    }
  }
}

}  // namespace turbokv
