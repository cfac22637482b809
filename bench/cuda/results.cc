#include "bench/cuda/results.h"

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace turbokv::bench {
namespace {

nlohmann::json ToJson(const Timing& timing) {
  return {{"median_us", timing.median_us},
          {"min_us", timing.min_us},
          {"max_us", timing.max_us},
          {"spread", timing.Spread()},
          {"iterations", timing.iterations}};
}

nlohmann::json ToJson(const StreamingRate& rate) {
  return {{"name", rate.name}, {"bytes_per_s", rate.bytes_per_s}};
}

}  // namespace

double Results::LimitOf(const Measurement& measurement) const {
  return measurement.limit == Limit::kRead ? bandwidth_.read.bytes_per_s
                                           : bandwidth_.copy.bytes_per_s;
}

void Results::PrintHeader() const {
  std::printf("read  %.3f TB/s  %s\n", 1e-12 * bandwidth_.read.bytes_per_s,
              bandwidth_.read.name.c_str());
  std::printf("copy  %.3f TB/s  %s (bytes read plus bytes written)\n",
              1e-12 * bandwidth_.copy.bytes_per_s, bandwidth_.copy.name.c_str());
  std::printf("an empty kernel between two events: %.1f us\n\n", bandwidth_.empty_launch.median_us);
  std::printf("%-44s %9s %25s %9s %25s %7s %7s\n", "median us", "launches", "min..max (spread)",
              "graph", "min..max (spread)", "TB/s", "share");
}

void Results::Add(const Measurement& measurement) {
  const double rate = measurement.bytes / (1e-6 * measurement.BestUs());
  const double share = rate / LimitOf(measurement);
  std::printf("%-44s", measurement.name.c_str());
  for (const Timing& timing : {measurement.launches, measurement.graph}) {
    std::printf(" %9.1f %8.1f..%-7.1f (%3.0f %%)", timing.median_us, timing.min_us, timing.max_us,
                100 * timing.Spread());
  }
  std::printf(" %7.3f %5.1f %%%s%s\n", 1e-12 * rate, 100 * share,
              measurement.wrong.empty() ? "" : "  WRONG: ", measurement.wrong.c_str());
  std::fflush(stdout);
  if (!measurement.wrong.empty()) ++wrong_count_;
  nlohmann::json row = measurement.facts;
  row["name"] = measurement.name;
  row["limit"] = measurement.limit == Limit::kRead ? "read" : "copy";
  row["bytes"] = measurement.bytes;
  row["launches"] = ToJson(measurement.launches);
  row["graph"] = ToJson(measurement.graph);
  row["best_us"] = measurement.BestUs();
  row["bytes_per_s"] = rate;
  row["share"] = share;
  row["wrong"] = measurement.wrong;
  cases_.push_back(std::move(row));
}

void Results::Skip(const std::string& name, const absl::Status& reason) {
  std::printf("%-44s skipped: %s\n", name.c_str(), std::string(reason.message()).c_str());
  std::fflush(stdout);
  skipped_.push_back({{"name", name}, {"reason", std::string(reason.message())}});
}

absl::Status Results::WriteJson(const std::string& path, nlohmann::json device) const {
  nlohmann::json all = nlohmann::json::array();
  for (const StreamingRate& rate : bandwidth_.all) all.push_back(ToJson(rate));
  const nlohmann::json document = {{"device", std::move(device)},
                                   {"read", ToJson(bandwidth_.read)},
                                   {"copy", ToJson(bandwidth_.copy)},
                                   {"empty_launch", ToJson(bandwidth_.empty_launch)},
                                   {"bandwidth", std::move(all)},
                                   {"cases", cases_},
                                   {"skipped", skipped_}};
  std::ofstream file(path);
  file << document.dump(1) << "\n";
  file.close();
  return file ? absl::OkStatus() : absl::UnavailableError(absl::StrCat("cannot write ", path));
}

}  // namespace turbokv::bench
