#include <memory>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/cli/command.h"
#include "client/cli/llama_file.h"
#include "client/cli/progress.h"

namespace turbokv::cli {
namespace {

constexpr char kLlamaFormat[] = "llama.cpp";

struct ConvertOptions {
  std::string input_path;
  std::string output_path;
  std::string to;
  std::string from;
  std::string policy;  // empty: none given
  OutputOptions output;
};

absl::StatusOr<ConvertSummary> ConvertTo(const ConvertOptions& options, const Policy& policy) {
  TURBOKV_ASSIGN_OR_RETURN(const Capture capture, OpenCapture(options.input_path));
  TURBOKV_ASSIGN_OR_RETURN(const std::vector<LayerCodecs> codecs, policy.Expand(capture.layers));
  Progress progress("converting layers", Progress::Unit::kItems, capture.layers,
                    options.output.progress);
  return WriteLlamaFile(capture, codecs, options.output_path, [&] { progress.Add(1); });
}

absl::StatusOr<ConvertSummary> ConvertFrom(const ConvertOptions& options,
                                           const std::optional<Policy>& policy) {
  TURBOKV_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(options.input_path));
  TURBOKV_ASSIGN_OR_RETURN(const int layers, CountLayers(file));
  Progress progress("converting layers", Progress::Unit::kItems, layers, options.output.progress);
  return ReadLlamaFile(file, policy, options.output_path, [&] { progress.Add(1); });
}

absl::Status RunConvert(const ConvertOptions& options) {
  std::optional<Policy> policy;
  if (!options.policy.empty()) {
    TURBOKV_ASSIGN_OR_RETURN(policy, Policy::Parse(options.policy));
  }
  TURBOKV_ASSIGN_OR_RETURN(const ConvertSummary summary, options.to.empty()
                                                             ? ConvertFrom(options, policy)
                                                             : ConvertTo(options, *policy));
  const std::string codecs = CanonicalPolicy(summary.codecs);
  if (options.output.json) {
    PrintJson({{"input", options.input_path},
               {"output", options.output_path},
               {"format", options.to.empty() ? "values" : options.to},
               {"policy", codecs},
               {"layers", summary.layers},
               {"kv_heads", summary.kv_heads},
               {"tokens", summary.tokens},
               {"head_dim", summary.head_dim},
               {"input_bytes", summary.input_bytes},
               {"output_bytes", summary.output_bytes}});
    return absl::OkStatus();
  }
  absl::PrintF("%s: %d layers of %d tokens, %s of K and V became %s\n  %s\n", options.output_path,
               summary.layers, summary.tokens, HumanBytes(summary.input_bytes),
               HumanBytes(summary.output_bytes), codecs);
  return absl::OkStatus();
}

}  // namespace

void AddConvert(CLI::App* app, Action* action) {
  CLI::App* command = app->add_subcommand(
      "convert", "Convert a capture to the llama.cpp blocks turbo2/3/4, or back; needs no server");
  auto options = std::make_shared<ConvertOptions>();
  command->add_option("IN", options->input_path, "Input file")->required();
  command->add_option("OUT", options->output_path, "Output .safetensors file")->required();
  CLI::Option* policy = AddPolicyOption(
      command, &options->policy,
      "Codecs: turbo2, turbo3 or turbo4 for each layer's K and V. --from finds them in the file");
  CLI::Option* to = command->add_option("--to", options->to, "Format of OUT; IN is a capture")
                        ->check(CLI::IsMember({kLlamaFormat}))
                        ->needs(policy);
  command->add_option("--from", options->from, "Format of IN; OUT gets its values as F32")
      ->check(CLI::IsMember({kLlamaFormat}))
      ->excludes(to);
  AddOutputOptions(command, &options->output);
  command->footer(
      "K is never centred here: those blocks have no place for its mean.\n"
      "Examples:\n"
      "  turbokv convert capture.safetensors blocks.safetensors --to llama.cpp --policy turbo4\n"
      "  turbokv convert blocks.safetensors values.safetensors --from llama.cpp");
  command->callback([options, action] {
    if (options->to.empty() && options->from.empty()) throw CLI::RequiredError("--to or --from");
    *action = [options] { return RunConvert(*options); };
  });
}

}  // namespace turbokv::cli
