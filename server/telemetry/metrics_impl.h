// The values behind Metrics, and their exposition.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "prometheus/collectable.h"
#include "server/index/block_cache.h"
#include "server/telemetry/exposition.h"
#include "server/telemetry/instruments.h"
#include "server/telemetry/metrics.h"

namespace turbokv {

// The methods that calls are counted by; anything else is "other".
inline constexpr std::array<absl::string_view, 10> kRpcMethods = {
    "Store",  "Lookup", "Fetch",    "Renew",   "Release",
    "Remove", "Stats",  "Describe", "Connect", "other"};
inline constexpr size_t kStatusCodes = 17;  // absl's, which are gRPC's

// What is counted for one codec of K or of V.
struct CodecValues {
  std::atomic<int64_t> pages{0};
  std::atomic<int64_t> raw_bytes{0};
  std::atomic<int64_t> kept_bytes{0};
  DistortionHistogram distortion;
};

struct MoveValues {
  std::atomic<int64_t> blocks{0};
  std::atomic<int64_t> bytes{0};
};

class MetricValues : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;

  void SetUsageSource(std::function<CacheUsage()> source);
  void SetShareSource(std::function<ShareUsage()> source);
  std::atomic<int64_t>& road(RoadCall call, MetricRoad road) {
    return roads_[static_cast<size_t>(call)][static_cast<size_t>(road)];
  }
  CodecValues& codec(PageTensor tensor, Codec codec) {
    return codecs_[static_cast<size_t>(tensor)][static_cast<size_t>(codec)];
  }
  // Over both tensors and all codecs.
  int64_t Sum(std::atomic<int64_t> CodecValues::*counter) const {
    int64_t sum = 0;
    for (const auto& of_tensor : codecs_) {
      for (const CodecValues& values : of_tensor) sum += values.*counter;
    }
    return sum;
  }
  LatencyHistogram& latency(Latency what) { return latencies_[static_cast<size_t>(what)]; }
  MoveValues& moves(bool promoted) { return moves_[promoted ? 1 : 0]; }
  std::atomic<int64_t>& nccl_bytes(bool received) { return nccl_bytes_[received ? 1 : 0]; }
  void CountRpc(absl::string_view method, absl::StatusCode code);

  std::atomic<int64_t> received_bytes{0};
  std::atomic<int64_t> fetched_bytes{0};
  std::atomic<int64_t> hit_tokens{0};
  std::atomic<int64_t> missed_tokens{0};
  std::atomic<int64_t> hit_bytes{0};
  std::atomic<int64_t> missed_bytes{0};
  std::atomic<int64_t> evicted_blocks{0};
  std::atomic<int64_t> evicted_bytes{0};
  std::atomic<int64_t> damaged_pages{0};
  std::atomic<int64_t> active_stores{0};
  std::atomic<int64_t> nccl_channels{0};
  std::atomic<int64_t> nccl_aborts{0};

 private:
  static constexpr size_t kTensors = 2;
  static constexpr size_t kCodecIds = static_cast<size_t>(Codec::kKlt2) + 1;

  void CollectBytes(Exposition* out) const;
  void CollectCodecs(Exposition* out) const;
  void CollectLatencies(Exposition* out) const;
  void CollectLookups(Exposition* out) const;
  void CollectMoves(Exposition* out) const;
  void CollectNccl(Exposition* out) const;
  void CollectUsage(Exposition* out) const;
  void CollectRoads(Exposition* out) const;
  void CollectRpcs(Exposition* out) const;

  std::array<std::array<CodecValues, kCodecIds>, kTensors> codecs_{};
  std::array<LatencyHistogram, 5> latencies_;         // by Latency
  std::array<MoveValues, 2> moves_;                   // demoted, promoted
  std::array<std::atomic<int64_t>, 2> nccl_bytes_{};  // sent, received
  std::array<std::array<std::atomic<int64_t>, kStatusCodes>, kRpcMethods.size()> rpcs_{};
  std::array<std::array<std::atomic<int64_t>, 4>, 2> roads_{};  // by RoadCall, MetricRoad
  mutable Mutex mutex_;
  std::function<CacheUsage()> usage_source_ ABSL_GUARDED_BY(mutex_);
  std::function<ShareUsage()> share_source_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv
