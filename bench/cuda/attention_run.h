// Measures decode attention on one batch.
#pragma once

#include "absl/status/statusor.h"
#include "bench/cuda/cases.h"
#include "bench/cuda/page_supply.h"
#include "bench/cuda/results.h"
#include "bench/cuda/stopwatch.h"

namespace turbokv::bench {

// RESOURCE_EXHAUSTED where the case does not fit into the device's memory.
absl::StatusOr<Measurement> MeasureAttention(const AttentionCase& test, PageSupply& supply,
                                             Stopwatch& stopwatch);

}  // namespace turbokv::bench
