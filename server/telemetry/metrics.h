// Every metric of turbokvd, in one place. docs/metrics.md lists them; a test compares the two.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "kernels/format/codec.h"
#include "kernels/format/llama_blocks.h"

namespace turbokv {

struct CacheUsage;

enum class Latency : uint8_t { kEncodePage, kStore, kLookup, kFetch, kTimeToFirstLayer };

enum class RoadCall : uint8_t { kStore, kLookup };
// "grpc", "shm", "cuda", "nccl".
enum class MetricRoad : uint8_t { kGrpc, kShm, kCuda, kNccl };

// Sharing as it is now.
struct ShareUsage {
  uint64_t sessions = 0;
  uint64_t staging_bytes = 0;
};

// Totals for AdminService.Stats.
struct CodecTotals {
  int64_t pages = 0, raw_bytes = 0, kept_bytes = 0, sampled_pages = 0;
  double relative_mse_sum = 0;
};

// Threads: every method may be called from any thread, and is cheap (no lookup by label).
class Metrics {
 public:
  Metrics();
  ~Metrics();

  // Serves /metrics on `address` ("0.0.0.0:7071"). UNAVAILABLE names the address when it is taken.
  absl::Status Serve(const std::string& address);
  // Port in use, e.g. after serving port 0. Precondition: Serve returned OK.
  int port() const;

  // Gauges of the pool, the index and the leases are read from here at each scrape.
  void SetUsageSource(std::function<CacheUsage()> source);

  // As SetUsageSource, of the share socket; without it they are 0.
  void SetShareSource(std::function<ShareUsage()> source);

  void ObserveLatency(Latency what, absl::Duration duration);
  // A page kept for `raw_bytes` of values; call for K and for V.
  void CountPage(PageTensor tensor, Codec codec, int64_t raw_bytes, int64_t kept_bytes);
  void ObserveDistortion(PageTensor tensor, Codec codec, double relative_mse);
  void CountStoredBytes(int64_t received_bytes);
  void CountFetchedBytes(int64_t sent_bytes);
  void CountLookup(int64_t hit_tokens, int64_t missed_tokens, int64_t hit_bytes,
                   int64_t missed_bytes);
  void CountEviction(int64_t blocks, int64_t bytes);
  // Between a device's memory and host memory; `promoted`: to the device.
  void CountMove(bool promoted, int64_t blocks, int64_t bytes);
  void CountDataLoss();                                            // a page failed its checksum
  void CountRpc(absl::string_view method, absl::StatusCode code);  // every finished call
  // A lookup or store that was admitted, by the way its pages or values travel.
  void CountRoad(RoadCall call, MetricRoad road);
  void AddActiveStores(int delta);
  // Over NCCL channels; `received`: from workers.
  void CountNcclBytes(bool received, int64_t bytes);
  void AddNcclChannels(int delta);
  void CountNcclAbort();

  CodecTotals Totals(PageTensor tensor, Codec codec) const;
  int64_t raw_bytes() const;
  int64_t kept_bytes() const;
  int64_t hit_tokens() const;
  int64_t missed_tokens() const;
  int64_t active_stores() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace turbokv
