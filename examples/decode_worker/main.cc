// turbokv-demo-decode: fetches a prompt's compressed K/V from turbokvd, goes on with the prompt by
// fused attention on the packed pages, and compares itself with the same on bf16 K/V.
#include <cstdio>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/decode_reader.h"
#include "client/sequence_cache.h"
#include "examples/decode_worker/generation.h"
#include "examples/decode_worker/layer_stream.h"
#include "examples/decode_worker/report.h"
#include "examples/decode_worker/sequence_attention.h"
#include "examples/demo/setup.h"
#include "examples/llama/distribution.h"

namespace turbokv::examples {
namespace {

struct DecodeFlags : DemoFlags {
  uint64_t seed = 2;
  double temperature = 0.8;
  double store_ms = std::numeric_limits<double>::quiet_NaN();
};

// Samples and prints tokens as they come.
NextToken SampleAndPrint(const DemoSetup& setup, const DecodeFlags& flags) {
  return [&setup, sampler = Sampler(flags.temperature, flags.seed)](
             int, absl::Span<const float> logits) mutable {
    const int32_t token = sampler.Draw(logits, setup.model->config().end_token);
    std::fputs(setup.tokenizer.Decode({token}).c_str(), stdout);
    std::fflush(stdout);
    return token;
  };
}

absl::StatusOr<Match> FindPrompt(const DemoSetup& setup, const DecodeFlags& flags,
                                 DecodeReader* reader) {
  TURBOKV_ASSIGN_OR_RETURN(const Match match, reader->Lookup(setup.prompt_ids, {}));
  if (match.blocks > 0 || match.tail_found) return match;
  return absl::NotFoundError(absl::StrCat(
      "turbokvd at ", flags.server, " holds nothing of this prompt (", setup.prompt_tokens(),
      " tokens, model ", setup.spec->spec.model_id, ", policy ", flags.policy,
      "): run turbokv-demo-prefill with the same --model, --prompt, --policy and --tokens first"));
}

// Generates on what turbokvd keeps, and fills in what `result` says about that.
absl::StatusOr<Generation> GenerateOnPages(const DemoSetup& setup, const DecodeFlags& flags,
                                           DemoResult* result) {
  const LlamaConfig& config = setup.model->config();
  const CacheSpec& spec = setup.spec->spec;
  const int64_t raw_page_bytes = static_cast<int64_t>(setup.spec->raw_token_bytes()) * kPageTokens;
  DecodeReader reader(setup.channel, setup.spec);
  const Stopwatch since_lookup;
  TURBOKV_ASSIGN_OR_RETURN(const Match match, FindPrompt(setup, flags, &reader));
  const double lookup_ms = since_lookup.ms();
  std::printf("Found %lld blocks of %d tokens%s.\n", static_cast<long long>(match.blocks),
              kPageTokens,
              match.tail_found
                  ? absl::StrCat(", and the last ", match.tail_tokens, " tokens exactly").c_str()
                  : "; computing the rest of the prompt here");
  if (match.tail_found && PackedBlocks(setup.prompt_tokens()) == 0) {
    std::printf("All of the prompt is in its exact tail: nothing is attended to compressed yet.\n");
  }
  std::printf("\n");

  FetchOptions fetch;
  // The tail covers the last full block.
  if (match.tail_found) fetch.block_count = PackedBlocks(setup.prompt_tokens());
  SequenceCache cache(setup.spec, nullptr);
  LayerStream stream(&reader, fetch);
  SequenceAttention attention(config, &cache,
                              [&](int layer) { return stream.AdoptUpTo(layer, &cache); });
  const int64_t held_tokens = match.tail_found ? setup.prompt_tokens() : match.blocks * kPageTokens;
  TURBOKV_ASSIGN_OR_RETURN(Generation generation,
                           Generate(*setup.model, setup.prompt_ids, held_tokens, flags.tokens,
                                    &attention, SampleAndPrint(setup, flags)));
  const int64_t fetched_blocks =
      match.tail_found ? PackedBlocks(setup.prompt_tokens()) : match.blocks;
  std::printf(
      "\n\nAt the end %lld blocks are packed, %lld of them encoded here; %d tokens are exact.\n",
      static_cast<long long>(cache.packed_blocks(0)),
      static_cast<long long>(cache.packed_blocks(0) - fetched_blocks), cache.tail_tokens(0));

  result->block_raw_bytes = match.blocks * spec.layers * raw_page_bytes;
  result->block_kept_bytes = match.blocks * static_cast<int64_t>(setup.spec->block_bytes());
  result->wire_raw_bytes = stream.pages() * raw_page_bytes;
  result->wire_bytes = stream.page_bytes();
  result->ttft_ms = lookup_ms + generation.first_token_ms;
  result->fetch_ms = stream.fetch_ms();
  return generation;
}

// Generates on bf16 K/V that this process computes itself, exact but for the rounding to bf16.
absl::StatusOr<Generation> GenerateOnBf16(const DemoSetup& setup, const DecodeFlags& flags,
                                          const NextToken& next_token) {
  const LlamaModel& model = *setup.model;
  TURBOKV_ASSIGN_OR_RETURN(const auto spec, SpecOf(model, flags.model_dir, "bf16"));
  SequenceCache cache(spec, nullptr);
  PromptAttention prompt(model.config(),
                         [&cache](int layer, const KvView& kv) { return cache.Append(layer, kv); });
  TURBOKV_RETURN_IF_ERROR(model.Forward(setup.prompt_ids, 0, &prompt).status());
  SequenceAttention attention(model.config(), &cache);
  return Generate(model, setup.prompt_ids, setup.prompt_tokens(), flags.tokens, &attention,
                  next_token);
}

double LaterTokenMs(const Generation& generation) {
  const auto later_tokens = static_cast<double>(generation.tokens.size() - 1);
  return later_tokens == 0 ? generation.first_token_ms
                           : (generation.total_ms - generation.first_token_ms) / later_tokens;
}

absl::Status Run(const DecodeFlags& flags) {
  TURBOKV_ASSIGN_OR_RETURN(const DemoSetup setup, SetUp(flags));
  DemoResult result;
  result.prompt_tokens = setup.prompt_tokens();
  result.store_ms = flags.store_ms;

  std::printf("--- Generated on compressed K/V (policy %s) ---\n", flags.policy.c_str());
  TURBOKV_ASSIGN_OR_RETURN(const Generation packed, GenerateOnPages(setup, flags, &result));
  std::printf("\n--- Generated on bf16 K/V (same seed) ---\n");
  TURBOKV_ASSIGN_OR_RETURN(const Generation free,
                           GenerateOnBf16(setup, flags, SampleAndPrint(setup, flags)));
  TURBOKV_ASSIGN_OR_RETURN(
      const Generation bf16,
      GenerateOnBf16(setup, flags, [&packed](int index, auto) { return packed.tokens[index]; }));

  result.generated_tokens = static_cast<int64_t>(packed.tokens.size());
  result.same_first_tokens = SameFirstTokens(free, packed);
  result.comparison = Compare(bf16, packed);
  result.packed_token_ms = LaterTokenMs(packed);
  result.bf16_token_ms = LaterTokenMs(bf16);
  std::printf("\n\n--- What compression cost ---\n");
  PrintTable(result);
  PrintSummary(result);
  return absl::OkStatus();
}

}  // namespace
}  // namespace turbokv::examples

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // progress shows through a pipe too
  turbokv::examples::DecodeFlags flags;
  CLI::App app(
      "Fetches a prompt's compressed K/V from turbokvd, goes on with the prompt by attention on "
      "the\n"
      "packed pages, and compares itself with the same generation on bf16 K/V.\n"
      "The last line is key=value pairs: docs/demo.md.");
  turbokv::examples::AddFlags(&app, &flags);
  app.add_option("--seed", flags.seed, "Of the sampling")->capture_default_str();
  app.add_option("--temperature", flags.temperature, "Of the sampling")
      ->check(CLI::Range(0.01, 100.0))
      ->capture_default_str();
  app.add_option("--store-ms", flags.store_ms, "What the prefill worker reported, to be repeated");
  CLI11_PARSE(app, argc, argv);
  return turbokv::examples::ExitCode("turbokv-demo-decode", turbokv::examples::Run(flags));
}
