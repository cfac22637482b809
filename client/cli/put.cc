#include <chrono>
#include <memory>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/cli/command.h"
#include "client/cli/progress.h"
#include "client/cli/sequence_options.h"
#include "client/prefill_writer.h"

namespace turbokv::cli {
namespace {

struct PutOptions {
  SequenceOptions sequence;
  ChannelOptions server;
  OutputOptions output;
  bool no_tail = false;
};

absl::StatusOr<StoreResult> Store(const PutOptions& options, const Sequence& sequence) {
  TURBOKV_ASSIGN_OR_RETURN(std::shared_ptr<CacheChannel> channel,
                           CacheChannel::Connect(options.server));
  StoreOptions store;
  store.salt = sequence.salt;
  store.store_tail = !options.no_tail;
  TURBOKV_ASSIGN_OR_RETURN(
      std::unique_ptr<PrefillWriter> writer,
      PrefillWriter::Open(std::move(channel), sequence.spec, sequence.token_ids, store));
  const Capture& capture = *sequence.capture;
  const int64_t layer_bytes =
      static_cast<int64_t>(sequence.spec->raw_token_bytes()) * capture.tokens;
  Progress progress("storing", Progress::Unit::kBytes, layer_bytes * capture.layers,
                    options.output.progress);
  for (int layer = 0; layer < capture.layers; ++layer) {
    TURBOKV_RETURN_IF_ERROR(writer->WriteLayer(layer, capture.View(layer)));
    progress.Add(layer_bytes);
  }
  return writer->Finish();
}

void PrintResult(const PutOptions& options, const Sequence& sequence, const StoreResult& result,
                 double seconds) {
  const CacheSpec& spec = sequence.spec->spec;
  const double ratio =
      static_cast<double>(Bf16Bytes(spec, kPageTokens)) / sequence.spec->block_bytes();
  if (options.output.json) {
    PrintJson({{"tokens", sequence.token_ids.size()},
               {"model", spec.model_id},
               {"policy", CanonicalPolicy(sequence.spec->layer_codecs)},
               {"spec_fingerprint", HexText(sequence.spec->fingerprint.data(), 32)},
               {"stored_blocks", result.stored_blocks},
               {"present_blocks", result.present_blocks},
               {"stored_tail", result.stored_tail},
               {"road", std::string(RoadName(result.road))},
               {"sent_bytes", result.sent_bytes},
               {"raw_bytes", result.raw_bytes},
               {"kept_bytes", result.kept_bytes},
               {"compression_ratio", ratio},
               {"encode_ms", absl::ToDoubleMilliseconds(result.encode_time)},
               {"store_ms", seconds * 1e3}});
    return;
  }
  absl::PrintF("stored %d blocks (%d were there already)%s of %d tokens in %.1f ms, %s/s, by %s\n",
               result.stored_blocks, result.present_blocks,
               result.stored_tail ? " and the tail" : "", sequence.token_ids.size(), seconds * 1e3,
               HumanBytes(result.sent_bytes / seconds), RoadName(result.road));
  absl::PrintF("raw %s, kept %s; a block is %.2f times smaller than in bf16\n",
               HumanBytes(result.raw_bytes), HumanBytes(result.kept_bytes), ratio);
}

absl::Status RunPut(const PutOptions& options) {
  TURBOKV_ASSIGN_OR_RETURN(const Sequence sequence, LoadSequence(options.sequence));
  const auto start = std::chrono::steady_clock::now();
  TURBOKV_ASSIGN_OR_RETURN(const StoreResult result, Store(options, sequence));
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  PrintResult(options, sequence, result, elapsed.count());
  return absl::OkStatus();
}

}  // namespace

void AddPut(CLI::App* app, Action* action) {
  CLI::App* command = app->add_subcommand("put", "Store a capture, layer by layer, with its tail");
  auto options = std::make_shared<PutOptions>();
  AddCaptureOptions(command, &options->sequence);
  command->add_flag("--no-tail", options->no_tail, "Store full blocks of 128 tokens only");
  AddServerOptions(command, &options->server);
  AddOutputOptions(command, &options->output);
  command->footer(
      "The server compresses what it keeps; the last 128..255 tokens are also kept as they are,\n"
      "for whoever goes on with this very sequence.\n"
      "Example:\n"
      "  turbokv put examples/data/captures/tiny-d128.safetensors --policy k=q8_0,v=turbo4");
  command->callback([options, action] { *action = [options] { return RunPut(*options); }; });
}

}  // namespace turbokv::cli
