// Going on with a prompt, token by token.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "examples/llama/model.h"

namespace turbokv::examples {

struct Generation {
  std::vector<int32_t> tokens;
  std::vector<float> logits;  // [tokens][vocab]: what each token was drawn from
  double first_token_ms = 0;
  double total_ms = 0;
};

// Chooses token `index` of the generation.
using NextToken = std::function<int32_t(int index, absl::Span<const float> logits)>;

// Generates `count` tokens after `prompt_ids`, whose first `held_tokens` tokens' K/V `attention`
// holds. The last prompt token is run in any case: its output is the first token's distribution.
absl::StatusOr<Generation> Generate(const LlamaModel& model, absl::Span<const int32_t> prompt_ids,
                                    int64_t held_tokens, int count, LayerAttention* attention,
                                    const NextToken& next_token);

struct Comparison {
  double mean_kld = 0;  // KL(base || other), in nats
  double top1_agreement = 0;
};

// How many tokens two generations share before they part ways.
int64_t SameFirstTokens(const Generation& one, const Generation& other);

// Of two generations of the same tokens.
Comparison Compare(const Generation& base, const Generation& other);

}  // namespace turbokv::examples
