// What the decode worker prints at its end.
#pragma once

#include <cstdint>

#include "examples/decode_worker/generation.h"

namespace turbokv::examples {

struct DemoResult {
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  // K/V of the prompt's full blocks, of all layers: as bf16 and as the service keeps them.
  int64_t block_raw_bytes = 0;
  int64_t block_kept_bytes = 0;
  // K/V of the pages that were fetched (the tail's are not among them), likewise.
  int64_t wire_raw_bytes = 0;
  int64_t wire_bytes = 0;
  int64_t same_first_tokens = 0;  // of the two texts
  Comparison comparison;          // on the tokens of the compressed one
  double packed_token_ms = 0;     // mean time of a token, on packed pages and on bf16
  double bf16_token_ms = 0;
  double ttft_ms = 0;   // from the lookup to the first token
  double store_ms = 0;  // told by the prefill worker; NaN when it was not
  double fetch_ms = 0;
};

void PrintTable(const DemoResult& result);

// One line of key=value pairs.
void PrintSummary(const DemoResult& result);

}  // namespace turbokv::examples
