#include "examples/decode_worker/generation.h"

#include <algorithm>

#include "base/status_macros.h"
#include "examples/demo/setup.h"
#include "examples/llama/distribution.h"

namespace turbokv::examples {

absl::StatusOr<Generation> Generate(const LlamaModel& model, absl::Span<const int32_t> prompt_ids,
                                    int64_t held_tokens, int count, LayerAttention* attention,
                                    const NextToken& next_token) {
  const Stopwatch stopwatch;
  const size_t width = model.config().hidden;
  const size_t vocab = model.config().vocab;
  Generation generation;
  generation.logits.resize(count * vocab);
  int64_t position = std::min(held_tokens, static_cast<int64_t>(prompt_ids.size()) - 1);
  absl::Span<const int32_t> input = prompt_ids.subspan(position);
  for (int index = 0; index < count; ++index) {
    TURBOKV_ASSIGN_OR_RETURN(const std::vector<float> hidden,
                             model.Forward(input, position, attention));
    position += static_cast<int64_t>(input.size());
    float* logits = generation.logits.data() + index * vocab;
    model.Logits(hidden.data() + hidden.size() - width, 1, logits);
    generation.tokens.push_back(next_token(index, absl::MakeConstSpan(logits, vocab)));
    if (index == 0) generation.first_token_ms = stopwatch.ms();
    input = absl::MakeConstSpan(generation.tokens).last(1);
  }
  generation.total_ms = stopwatch.ms();
  return generation;
}

int64_t SameFirstTokens(const Generation& one, const Generation& other) {
  return std::mismatch(one.tokens.begin(), one.tokens.end(), other.tokens.begin(),
                       other.tokens.end())
             .first -
         one.tokens.begin();
}

Comparison Compare(const Generation& base, const Generation& other) {
  const size_t count = base.tokens.size();
  const size_t vocab = base.logits.size() / count;
  Comparison comparison;
  for (size_t index = 0; index < count; ++index) {
    const auto these = absl::MakeConstSpan(base.logits).subspan(index * vocab, vocab);
    const auto those = absl::MakeConstSpan(other.logits).subspan(index * vocab, vocab);
    comparison.mean_kld += KlDivergence(these, those);
    comparison.top1_agreement += MostLikely(these) == MostLikely(those) ? 1 : 0;
  }
  comparison.mean_kld /= static_cast<double>(count);
  comparison.top1_agreement /= static_cast<double>(count);
  return comparison;
}

}  // namespace turbokv::examples
