// What the device's memory can do: the yardstick of everything else.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/cuda/stopwatch.h"

namespace turbokv::bench {

// One way of streaming through memory and the bytes a second of its median iteration, bytes that
// are read plus bytes that are written.
struct StreamingRate {
  std::string name;
  double bytes_per_s = 0;
};

struct Bandwidth {
  StreamingRate read;  // the fastest of all ways
  StreamingRate copy;
  // What a launch costs: an empty kernel between two events.
  Timing empty_launch;
  std::vector<StreamingRate> all;
};

absl::StatusOr<Bandwidth> MeasureBandwidth(Stopwatch& stopwatch, bool smoke);

}  // namespace turbokv::bench
