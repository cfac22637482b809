#include "examples/decode_worker/report.h"

#include <cstdio>

namespace turbokv::examples {
namespace {

// Nothing compressed: 1.
double Ratio(int64_t raw_bytes, int64_t bytes) {
  return bytes == 0 ? 1.0 : static_cast<double>(raw_bytes) / static_cast<double>(bytes);
}

void PrintBytes(const char* label, int64_t raw_bytes, int64_t bytes) {
  std::printf("%-44s %12lld %12lld   %.2f times smaller\n", label,
              static_cast<long long>(raw_bytes), static_cast<long long>(bytes),
              Ratio(raw_bytes, bytes));
}

}  // namespace

void PrintTable(const DemoResult& result) {
  if (result.same_first_tokens == result.generated_tokens) {
    std::printf("Both texts are the same.\n");
  } else {
    std::printf("The texts share their first %lld tokens; then one other draw leads elsewhere.\n",
                static_cast<long long>(result.same_first_tokens));
  }
  std::printf("%-44s %12s %12s\n", "", "bf16", "compressed");
  if (result.block_kept_bytes == 0) {
    std::printf("The prompt fills no block of 128 tokens: nothing of it is compressed.\n");
  } else {
    PrintBytes("bytes kept by turbokvd (full blocks)", result.block_raw_bytes,
               result.block_kept_bytes);
    PrintBytes("bytes sent to this worker (without the tail)", result.wire_raw_bytes,
               result.wire_bytes);
  }
  std::printf("%-44s %12.3f %12.3f\n", "milliseconds a token", result.bf16_token_ms,
              result.packed_token_ms);
  std::printf("%-44s %12s %12.5f   over the same %lld tokens\n",
              "mean KL divergence from bf16, nats", "0", result.comparison.mean_kld,
              static_cast<long long>(result.generated_tokens));
  std::printf("%-44s %12s %12.4f\n", "same most likely token as bf16", "1",
              result.comparison.top1_agreement);
}

void PrintSummary(const DemoResult& result) {
  std::printf(
      "prompt_tokens=%lld generated_tokens=%lld compression_ratio=%.4f wire_ratio=%.4f "
      "mean_kld=%.6g top1_agreement=%.4f ttft_ms=%.2f store_ms=%.2f fetch_ms=%.2f\n",
      static_cast<long long>(result.prompt_tokens), static_cast<long long>(result.generated_tokens),
      Ratio(result.block_raw_bytes, result.block_kept_bytes),
      Ratio(result.wire_raw_bytes, result.wire_bytes), result.comparison.mean_kld,
      result.comparison.top1_agreement, result.ttft_ms, result.store_ms, result.fetch_ms);
}

}  // namespace turbokv::examples
