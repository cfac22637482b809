// What was measured: printed as rows while it runs, kept for JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/cuda/bandwidth.h"
#include "bench/cuda/stopwatch.h"

namespace turbokv::bench {

enum class Limit { kRead, kCopy };  // which bandwidth a case is compared with

struct Measurement {
  std::string name;
  Limit limit = Limit::kRead;
  double bytes = 0;  // that must move: read, or read and written
  Timing launches;
  Timing graph;
  // Empty where the results are what they must be; otherwise what is wrong with them.
  std::string wrong;
  nlohmann::json facts;  // of the case: codecs, shape...

  // The median of the faster way to launch, which ratios are taken of.
  double BestUs() const { return std::min(launches.median_us, graph.median_us); }
};

class Results {
 public:
  explicit Results(Bandwidth bandwidth) : bandwidth_(std::move(bandwidth)) {}

  void PrintHeader() const;
  void Add(const Measurement& measurement);
  void Skip(const std::string& name, const absl::Status& reason);

  int wrong_count() const { return wrong_count_; }
  absl::Status WriteJson(const std::string& path, nlohmann::json device) const;

 private:
  double LimitOf(const Measurement& measurement) const;

  const Bandwidth bandwidth_;
  nlohmann::json cases_ = nlohmann::json::array();
  nlohmann::json skipped_ = nlohmann::json::array();
  int wrong_count_ = 0;
};

}  // namespace turbokv::bench
