// Builds the families of a scrape.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "prometheus/metric_family.h"

namespace turbokv {

using MetricLabels = std::vector<prometheus::ClientMetric::Label>;

// Threads: none; one per scrape.
class Exposition {
 public:
  void Counter(absl::string_view name, absl::string_view help, double value) {
    CounterFamily(name, help);
    AddCounter({}, value);
  }
  void Gauge(absl::string_view name, absl::string_view help, double value) {
    GaugeFamily(name, help);
    AddGauge({}, value);
  }

  // A family of several labelled metrics, which the Add calls that follow belong to.
  void CounterFamily(absl::string_view name, absl::string_view help) {
    Open(name, help, prometheus::MetricType::Counter);
  }
  void GaugeFamily(absl::string_view name, absl::string_view help) {
    Open(name, help, prometheus::MetricType::Gauge);
  }
  void HistogramFamily(absl::string_view name, absl::string_view help) {
    Open(name, help, prometheus::MetricType::Histogram);
  }
  void AddCounter(MetricLabels labels, double value) {
    Add(std::move(labels)).counter.value = value;
  }
  void AddGauge(MetricLabels labels, double value) { Add(std::move(labels)).gauge.value = value; }
  void AddHistogram(MetricLabels labels, prometheus::ClientMetric::Histogram histogram) {
    Add(std::move(labels)).histogram = std::move(histogram);
  }

  std::vector<prometheus::MetricFamily> Take() { return std::move(families_); }

 private:
  void Open(absl::string_view name, absl::string_view help, prometheus::MetricType type) {
    families_.push_back({std::string(name), std::string(help), type, {}});
  }
  prometheus::ClientMetric& Add(MetricLabels labels) {
    prometheus::ClientMetric& metric = families_.back().metric.emplace_back();
    metric.label = std::move(labels);
    return metric;
  }

  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace turbokv
