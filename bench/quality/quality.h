// What a policy costs a model: next-token distributions with K/V through the codecs against those
// with float32 K/V, teacher-forced.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/thread_pool.h"
#include "bench/quality/quantized_attention.h"
#include "examples/llama/model.h"

namespace turbokv::bench {

struct PolicyQuality {
  std::string policy;
  double bits_per_value = 0;  // BitsOfValues
  double perplexity = 0;
  double mean_kld = 0;  // KL(exact || quantized) in nats, over all positions
  double p99_kld = 0;
  double top1_agreement = 0;
};

struct QualityReport {
  double exact_perplexity = 0;
  std::vector<PolicyQuality> policies;  // in the order asked for
};

struct QualityOptions {
  std::vector<std::string> policies;
  int tokens = 2048;  // of a sequence
  int sequences = 3;
  Exact exact = Exact::kNothing;
};

// `token_ids` is cut into consecutive sequences. `pool` runs sequences in parallel; `on_progress`
// gets the share that is done, from any of its threads.
// INVALID_ARGUMENT: fewer ids than tokens * sequences, a policy that does not fit the model.
absl::StatusOr<QualityReport> MeasureQuality(const examples::LlamaModel& model,
                                             absl::Span<const int32_t> token_ids,
                                             const QualityOptions& options, ThreadPool* pool,
                                             const std::function<void(double)>& on_progress);

}  // namespace turbokv::bench
