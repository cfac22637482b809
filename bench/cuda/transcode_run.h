// Measures encoding bf16 K and V into pages, and decoding pages into bf16.
#pragma once

#include "absl/status/statusor.h"
#include "bench/cuda/cases.h"
#include "bench/cuda/page_supply.h"
#include "bench/cuda/results.h"
#include "bench/cuda/stopwatch.h"

namespace turbokv::bench {

// RESOURCE_EXHAUSTED where the case does not fit into the device's memory.
absl::StatusOr<Measurement> MeasureTranscode(const TranscodeCase& test, PageSupply& supply,
                                             Stopwatch& stopwatch);

}  // namespace turbokv::bench
