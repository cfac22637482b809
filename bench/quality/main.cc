// turbokv-quality: what policies cost a model, in bits and in divergence.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/status/status.h"
#include "base/status_macros.h"
#include "bench/quality/quality.h"
#include "examples/llama/blas.h"
#include "examples/llama/json_fields.h"
#include "examples/llama/tokenizer.h"

namespace turbokv::bench {
namespace {

struct Flags {
  std::string model;
  std::string text;
  std::vector<std::string> policies;
  int tokens = 2048;
  int sequences = 3;
  int tail = 0;
  int threads = 0;
  bool json = false;
};

void PrintTable(const Flags& flags, const QualityReport& report) {
  std::printf("%s, %d x %d tokens of %s, %s\n\n", flags.model.c_str(), flags.sequences,
              flags.tokens, flags.text.c_str(),
              flags.tail == 0 ? "cold (every token quantized)"
                              : "served (the tail of 128..255 tokens exact)");
  std::printf("%-40s %8s %12s %14s %14s %8s\n", "policy", "bits", "perplexity", "KLD mean e-3",
              "KLD p99 e-3", "top-1");
  std::printf("%-40s %8s %12.4f %14s %14s %8s\n", "(float32 K/V)", "32", report.exact_perplexity,
              "0", "0", "1");
  for (const PolicyQuality& row : report.policies) {
    std::printf("%-40s %8.3f %12.4f %14.4g %14.4g %8.4f\n", row.policy.c_str(), row.bits_per_value,
                row.perplexity, 1e3 * row.mean_kld, 1e3 * row.p99_kld, row.top1_agreement);
  }
}

void PrintJson(const Flags& flags, const QualityReport& report) {
  nlohmann::json rows = nlohmann::json::array();
  for (const PolicyQuality& row : report.policies) {
    rows.push_back({{"policy", row.policy},
                    {"bits_per_value", row.bits_per_value},
                    {"perplexity", row.perplexity},
                    {"mean_kld", row.mean_kld},
                    {"p99_kld", row.p99_kld},
                    {"top1_agreement", row.top1_agreement}});
  }
  const nlohmann::json document = {
      {"model", flags.model},       {"text", flags.text},
      {"tokens", flags.tokens},     {"sequences", flags.sequences},
      {"tail_tokens", flags.tail},  {"perplexity", report.exact_perplexity},
      {"policies", std::move(rows)}};
  std::printf("%s\n",
              document.dump(2, ' ', true, nlohmann::json::error_handler_t::replace).c_str());
}

absl::Status Run(const Flags& flags) {
  TURBOKV_ASSIGN_OR_RETURN(const auto model, examples::LlamaModel::Load(flags.model));
  TURBOKV_ASSIGN_OR_RETURN(const auto tokenizer, examples::Tokenizer::Load(flags.model));
  TURBOKV_ASSIGN_OR_RETURN(const std::string text, examples::ReadFile(flags.text));
  const std::vector<int32_t> ids = tokenizer.Encode(text);

  // Sequences run in parallel, so each takes one thread.
  examples::SetBlasThreads(1);
  ThreadPool pool(std::max(flags.threads - 1, 0));
  const bool show_progress = isatty(STDERR_FILENO) != 0;
  const auto on_progress = [show_progress](double share) {
    if (show_progress) std::fprintf(stderr, "\r%3.0f %%%s", 100 * share, share < 1 ? "" : "\r");
  };
  const QualityOptions options{flags.policies, flags.tokens, flags.sequences,
                               flags.tail == 0 ? Exact::kNothing : Exact::kTail};
  TURBOKV_ASSIGN_OR_RETURN(const QualityReport report,
                           MeasureQuality(*model, ids, options, &pool, on_progress));
  flags.json ? PrintJson(flags, report) : PrintTable(flags, report);
  return absl::OkStatus();
}

}  // namespace
}  // namespace turbokv::bench

int main(int argc, char** argv) {
  turbokv::bench::Flags flags;
  flags.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  CLI::App app(
      "Measures what storing K/V by a policy costs a model: perplexity, and the KL divergence of\n"
      "its next-token distributions from those with float32 K/V, teacher-forced on a text.");
  app.add_option("--model", flags.model,
                 "Directory with config.json, model.safetensors and tokenizer.json")
      ->required();
  app.add_option("--text", flags.text, "Text file, as long as tokens x sequences")->required();
  app.add_option("--policy", flags.policies, "Policy to measure; may be given several times")
      ->required()
      ->allow_extra_args(false);
  app.add_option("--tokens", flags.tokens, "Tokens of a sequence")->capture_default_str();
  app.add_option("--sequences", flags.sequences, "Consecutive sequences cut from the text")
      ->capture_default_str();
  app.add_option("--tail", flags.tail,
                 "0: cold, every token quantized; 128: served, the tail of 128..255 tokens exact")
      ->check(CLI::IsMember({0, 128}))
      ->capture_default_str();
  app.add_option("--threads", flags.threads, "Threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_flag("--json", flags.json, "Print JSON instead of a table");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = turbokv::bench::Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "turbokv-quality: %s\n", std::string(status.message()).c_str());
  return 1;
}
