// Counters, gauges and histograms that cost an atomic addition, and their exposition.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "prometheus/client_metric.h"

namespace turbokv {

// 10 us to 10 s in steps of 1, 2.5 and 5.
inline constexpr std::array<double, 19> kLatencyBucketsSeconds = {
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3,
    25e-3, 50e-3, 0.1,   0.25,   0.5,    1,      2.5,  5,      10};

// Mean squared error over mean square, from q8_0 (1e-5) to 2 bits (0.1) and beyond.
inline constexpr std::array<double, 13> kDistortionBuckets = {
    1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 1};

// Threads: any.
template <const auto& kBounds>
class AtomicHistogram {
 public:
  void Observe(double value) {
    size_t bucket = 0;
    while (bucket < kBounds.size() && value > kBounds[bucket]) ++bucket;
    counts_[bucket].fetch_add(1, std::memory_order_relaxed);
    double sum = sum_.load(std::memory_order_relaxed);
    while (!sum_.compare_exchange_weak(sum, sum + value, std::memory_order_relaxed)) {
    }
  }

  int64_t count() const {
    int64_t count = 0;
    for (const std::atomic<int64_t>& bucket : counts_) {
      count += bucket.load(std::memory_order_relaxed);
    }
    return count;
  }
  double sum() const { return sum_.load(std::memory_order_relaxed); }

  prometheus::ClientMetric::Histogram Collect() const {
    prometheus::ClientMetric::Histogram histogram;
    uint64_t cumulative = 0;
    for (size_t i = 0; i < kBounds.size(); ++i) {
      cumulative += counts_[i].load(std::memory_order_relaxed);
      histogram.bucket.push_back({cumulative, kBounds[i]});
    }
    histogram.sample_count = cumulative + counts_.back().load(std::memory_order_relaxed);
    histogram.sample_sum = sum();
    return histogram;
  }

 private:
  std::array<std::atomic<int64_t>, kBounds.size() + 1> counts_{};  // the last: above every bound
  std::atomic<double> sum_{0};
};

using LatencyHistogram = AtomicHistogram<kLatencyBucketsSeconds>;
using DistortionHistogram = AtomicHistogram<kDistortionBuckets>;

}  // namespace turbokv
