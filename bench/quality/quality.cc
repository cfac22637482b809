#include "bench/quality/quality.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "examples/llama/distribution.h"

namespace turbokv::bench {
namespace {

constexpr int kRowsPerStep = 128;  // positions whose logits are held at once

struct Positions {
  double negative_log_likelihood = 0;  // of the tokens that follow
  int64_t predictions = 0;
  std::vector<double> kld;
  int64_t same_top1 = 0;
};

using Hidden = std::vector<float>;

// Scores the predictions of `hidden`; compares them with those of `base` unless it is the same.
Positions Score(const examples::LlamaModel& model, absl::Span<const int32_t> ids,
                const Hidden& base, const Hidden& hidden) {
  const int width = model.config().hidden;
  const size_t vocab = model.config().vocab;
  const int tokens = static_cast<int>(ids.size());
  std::vector<float> base_logits(kRowsPerStep * vocab);
  std::vector<float> logits(kRowsPerStep * vocab);
  Positions positions;
  for (int first = 0; first < tokens; first += kRowsPerStep) {
    const int rows = std::min(kRowsPerStep, tokens - first);
    const size_t offset = static_cast<size_t>(first) * width;
    model.Logits(hidden.data() + offset, rows, logits.data());
    if (&base != &hidden) model.Logits(base.data() + offset, rows, base_logits.data());
    for (int row = 0; row < rows; ++row) {
      const absl::Span<const float> these(logits.data() + row * vocab, vocab);
      if (first + row + 1 < tokens) {
        positions.negative_log_likelihood +=
            examples::LogSumExp(these) - these[ids[first + row + 1]];
        ++positions.predictions;
      }
      if (&base == &hidden) continue;
      const absl::Span<const float> those(base_logits.data() + row * vocab, vocab);
      positions.kld.push_back(examples::KlDivergence(those, these));
      positions.same_top1 += examples::MostLikely(those) == examples::MostLikely(these);
    }
  }
  return positions;
}

double Perplexity(absl::Span<const Positions> sequences) {
  double sum = 0;
  int64_t predictions = 0;
  for (const Positions& sequence : sequences) {
    sum += sequence.negative_log_likelihood;
    predictions += sequence.predictions;
  }
  return std::exp(sum / static_cast<double>(predictions));
}

PolicyQuality Summarise(const std::string& policy, const std::vector<PageLayout>& layouts,
                        absl::Span<const Positions> sequences) {
  std::vector<double> kld;
  int64_t same_top1 = 0;
  for (const Positions& sequence : sequences) {
    kld.insert(kld.end(), sequence.kld.begin(), sequence.kld.end());
    same_top1 += sequence.same_top1;
  }
  const auto count = static_cast<double>(kld.size());
  double sum = 0;
  for (double value : kld) sum += value;
  const auto p99 = kld.begin() + static_cast<ptrdiff_t>(0.99 * (count - 1));
  std::nth_element(kld.begin(), p99, kld.end());
  return {policy,
          BitsOfValues(layouts),
          Perplexity(sequences),
          sum / count,
          *p99,
          static_cast<double>(same_top1) / count};
}

absl::Status Validate(const examples::LlamaModel& model, absl::Span<const int32_t> token_ids,
                      const QualityOptions& options) {
  if (options.sequences < 1 || options.tokens < 2 ||
      options.tokens > model.config().context_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.sequences, " sequences of ", options.tokens,
                     " tokens: at least 1 sequence is needed, of 2..",
                     model.config().context_tokens, " tokens (the model's context)"));
  }
  const int64_t needed = int64_t{options.tokens} * options.sequences;
  if (static_cast<int64_t>(token_ids.size()) < needed) {
    return absl::InvalidArgumentError(absl::StrCat("the text has ", token_ids.size(), " tokens, ",
                                                   options.sequences, " sequences of ",
                                                   options.tokens, " need ", needed));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<QualityReport> MeasureQuality(const examples::LlamaModel& model,
                                             absl::Span<const int32_t> token_ids,
                                             const QualityOptions& options, ThreadPool* pool,
                                             const std::function<void(double)>& on_progress) {
  TURBOKV_RETURN_IF_ERROR(Validate(model, token_ids, options));
  const size_t sequences = options.sequences;
  const size_t policies = options.policies.size();
  std::vector<std::vector<PageLayout>> layouts;
  for (const std::string& policy : options.policies) {
    TURBOKV_ASSIGN_OR_RETURN(std::vector<PageLayout> of_policy, LayoutsOf(policy, model.config()));
    layouts.push_back(std::move(of_policy));
  }

  std::atomic<size_t> done = 0;
  auto run = [&](size_t sequence, examples::LayerAttention* attention) {
    const auto ids = token_ids.subspan(sequence * options.tokens, options.tokens);
    absl::StatusOr<Hidden> hidden = model.Forward(ids, 0, attention);
    on_progress(static_cast<double>(++done) / static_cast<double>(sequences * (policies + 1)));
    return hidden;
  };
  auto ids_of = [&](size_t sequence) {
    return token_ids.subspan(sequence * options.tokens, options.tokens);
  };

  std::vector<absl::StatusOr<Hidden>> base(sequences, absl::UnknownError("not run"));
  std::vector<Positions> exact(sequences);
  ParallelFor(pool, sequences, [&](size_t sequence) {
    examples::PromptAttention attention(model.config());
    base[sequence] = run(sequence, &attention);
    if (base[sequence].ok()) {
      exact[sequence] = Score(model, ids_of(sequence), *base[sequence], *base[sequence]);
    }
  });
  for (const absl::StatusOr<Hidden>& hidden : base) TURBOKV_RETURN_IF_ERROR(hidden.status());

  std::vector<absl::Status> statuses(policies * sequences);
  std::vector<Positions> positions(policies * sequences);
  ParallelFor(pool, positions.size(), [&](size_t job) {
    const size_t sequence = job % sequences;
    QuantizedAttention attention(model.config(), layouts[job / sequences], options.exact);
    const absl::StatusOr<Hidden> hidden = run(sequence, &attention);
    statuses[job] = hidden.status();
    if (hidden.ok()) positions[job] = Score(model, ids_of(sequence), *base[sequence], *hidden);
  });
  for (const absl::Status& status : statuses) TURBOKV_RETURN_IF_ERROR(status);

  QualityReport report{Perplexity(exact), {}};
  for (size_t policy = 0; policy < policies; ++policy) {
    report.policies.push_back(
        Summarise(options.policies[policy], layouts[policy],
                  absl::MakeConstSpan(positions).subspan(policy * sequences, sequences)));
  }
  return report;
}

}  // namespace turbokv::bench
