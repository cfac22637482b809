#include <chrono>
#include <memory>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/cli/command.h"
#include "client/cli/sequence_options.h"
#include "client/decode_reader.h"

namespace turbokv::cli {
namespace {

struct SequenceLookupOptions {
  SequenceOptions sequence;
  ChannelOptions server;
  OutputOptions output;
};

void PrintMatch(const SequenceLookupOptions& options, const Sequence& sequence, const Match& match,
                double seconds) {
  const int64_t tokens = static_cast<int64_t>(sequence.token_ids.size());
  const int64_t matched = match.tail_found ? tokens : match.blocks * kPageTokens;
  if (options.output.json) {
    PrintJson({{"tokens", tokens},
               {"matched_tokens", matched},
               {"blocks", match.blocks},
               {"tail_found", match.tail_found},
               {"tail_tokens", match.tail_found ? match.tail_tokens : 0},
               {"policy", CanonicalPolicy(sequence.spec->layer_codecs)},
               {"spec_fingerprint", HexText(sequence.spec->fingerprint.data(), 32)},
               {"lookup_ms", seconds * 1e3}});
    return;
  }
  absl::PrintF("%d of %d tokens are stored: %d blocks", matched, tokens, match.blocks);
  if (match.tail_found) absl::PrintF(" and a tail of %d tokens", match.tail_tokens);
  absl::PrintF(" (%.2f ms)\n", seconds * 1e3);
}

absl::Status RunLookup(const SequenceLookupOptions& options) {
  TURBOKV_ASSIGN_OR_RETURN(const Sequence sequence, LoadSequence(options.sequence));
  TURBOKV_ASSIGN_OR_RETURN(std::shared_ptr<CacheChannel> channel,
                           CacheChannel::Connect(options.server));
  DecodeReader reader(std::move(channel), sequence.spec);
  LookupOptions lookup;
  lookup.salt = sequence.salt;
  const auto start = std::chrono::steady_clock::now();
  TURBOKV_ASSIGN_OR_RETURN(const Match match, reader.Lookup(sequence.token_ids, lookup));
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  PrintMatch(options, sequence, match, elapsed.count());
  return absl::OkStatus();
}

}  // namespace

void AddLookup(CLI::App* app, Action* action) {
  CLI::App* command =
      app->add_subcommand("lookup", "Say how much of a sequence is stored, without fetching it");
  auto options = std::make_shared<SequenceLookupOptions>();
  AddSequenceOptions(command, &options->sequence);
  AddServerOptions(command, &options->server);
  AddOutputOptions(command, &options->output);
  command->footer(
      "Finding nothing is no error: matched_tokens is then 0.\n"
      "Example:\n"
      "  turbokv lookup examples/data/captures/tiny-d128.safetensors --json");
  command->callback([options, action] {
    RequireSequence(options->sequence);
    *action = [options] { return RunLookup(*options); };
  });
}

}  // namespace turbokv::cli
