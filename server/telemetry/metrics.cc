#include "server/telemetry/metrics.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "prometheus/exposer.h"
#include "server/telemetry/metrics_impl.h"

namespace turbokv {

class Metrics::Impl {
 public:
  MetricValues& values() { return *values_; }

  absl::Status Serve(const std::string& address) {
    // prometheus-cpp and civetweb report failure by exceptions; they end here.
    try {
      exposer_ = std::make_unique<prometheus::Exposer>(address);
      exposer_->RegisterCollectable(values_);
    } catch (const std::exception& error) {
      exposer_.reset();
      return absl::UnavailableError(absl::StrCat("cannot serve metrics on '", address,
                                                 "': ", error.what(), " (is the port in use?)"));
    }
    return absl::OkStatus();
  }

  int port() const { return exposer_->GetListeningPorts().front(); }

 private:
  // Shared, since the exposer holds what it serves weakly.
  const std::shared_ptr<MetricValues> values_ = std::make_shared<MetricValues>();
  std::unique_ptr<prometheus::Exposer> exposer_;
};

namespace {

void Count(std::atomic<int64_t>* counter, int64_t delta) {
  counter->fetch_add(delta, std::memory_order_relaxed);
}

int64_t Read(const std::atomic<int64_t>& counter) {
  return counter.load(std::memory_order_relaxed);
}

}  // namespace

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}
Metrics::~Metrics() = default;

absl::Status Metrics::Serve(const std::string& address) { return impl_->Serve(address); }
int Metrics::port() const { return impl_->port(); }

void Metrics::SetUsageSource(std::function<CacheUsage()> source) {
  impl_->values().SetUsageSource(std::move(source));
}

void Metrics::ObserveLatency(Latency what, absl::Duration duration) {
  impl_->values().latency(what).Observe(absl::ToDoubleSeconds(duration));
}

void Metrics::CountPage(PageTensor tensor, Codec codec, int64_t raw_bytes, int64_t kept_bytes) {
  CodecValues& values = impl_->values().codec(tensor, codec);
  Count(&values.pages, 1);
  Count(&values.raw_bytes, raw_bytes);
  Count(&values.kept_bytes, kept_bytes);
}

void Metrics::ObserveDistortion(PageTensor tensor, Codec codec, double relative_mse) {
  impl_->values().codec(tensor, codec).distortion.Observe(relative_mse);
}

void Metrics::CountStoredBytes(int64_t received_bytes) {
  Count(&impl_->values().received_bytes, received_bytes);
}

void Metrics::CountFetchedBytes(int64_t sent_bytes) {
  Count(&impl_->values().fetched_bytes, sent_bytes);
}

void Metrics::CountLookup(int64_t hit_tokens, int64_t missed_tokens, int64_t hit_bytes,
                          int64_t missed_bytes) {
  MetricValues& values = impl_->values();
  Count(&values.hit_tokens, hit_tokens);
  Count(&values.missed_tokens, missed_tokens);
  Count(&values.hit_bytes, hit_bytes);
  Count(&values.missed_bytes, missed_bytes);
}

void Metrics::CountEviction(int64_t blocks, int64_t bytes) {
  Count(&impl_->values().evicted_blocks, blocks);
  Count(&impl_->values().evicted_bytes, bytes);
}

void Metrics::CountMove(bool promoted, int64_t blocks, int64_t bytes) {
  MoveValues& moves = impl_->values().moves(promoted);
  Count(&moves.blocks, blocks);
  Count(&moves.bytes, bytes);
}

void Metrics::CountDataLoss() { Count(&impl_->values().damaged_pages, 1); }

void Metrics::CountRpc(absl::string_view method, absl::StatusCode code) {
  impl_->values().CountRpc(method, code);
}

void Metrics::SetShareSource(std::function<ShareUsage()> source) {
  impl_->values().SetShareSource(std::move(source));
}

void Metrics::CountRoad(RoadCall call, MetricRoad road) {
  Count(&impl_->values().road(call, road), 1);
}

void Metrics::AddActiveStores(int delta) { Count(&impl_->values().active_stores, delta); }

void Metrics::CountNcclBytes(bool received, int64_t bytes) {
  Count(&impl_->values().nccl_bytes(received), bytes);
}

void Metrics::AddNcclChannels(int delta) { Count(&impl_->values().nccl_channels, delta); }
void Metrics::CountNcclAbort() { Count(&impl_->values().nccl_aborts, 1); }

CodecTotals Metrics::Totals(PageTensor tensor, Codec codec) const {
  const CodecValues& values = impl_->values().codec(tensor, codec);
  return {Read(values.pages), Read(values.raw_bytes), Read(values.kept_bytes),
          values.distortion.count(), values.distortion.sum()};
}

int64_t Metrics::raw_bytes() const { return impl_->values().Sum(&CodecValues::raw_bytes); }
int64_t Metrics::kept_bytes() const { return impl_->values().Sum(&CodecValues::kept_bytes); }
int64_t Metrics::hit_tokens() const { return Read(impl_->values().hit_tokens); }
int64_t Metrics::missed_tokens() const { return Read(impl_->values().missed_tokens); }
int64_t Metrics::active_stores() const { return Read(impl_->values().active_stores); }

}  // namespace turbokv
