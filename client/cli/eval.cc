#include <algorithm>
#include <cstdio>
#include <memory>
#include <thread>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/cli/command.h"
#include "client/cli/evaluate.h"
#include "client/cli/progress.h"

namespace turbokv::cli {
namespace {

struct EvalOptions {
  std::string capture_path;
  std::string policy{kDefaultPolicy};
  OutputOptions output;
};

Json TensorJson(Codec codec, double relative_mse) {
  return {{"codec", std::string(CodecName(codec))}, {"relative_mse", relative_mse}};
}

// Null where there are no queries to measure with.
void AddAttentionJson(const std::optional<AttentionFidelity>& attention, Json* json) {
  (*json)["output_error"] = attention ? Json(attention->output_error) : Json();
  (*json)["attention_kld"] = attention ? Json(attention->attention_kld) : Json();
}

Json LayerJson(int index, const LayerQuality& layer) {
  Json json = {{"layer", index},
               {"bits_per_value", layer.bits_per_value},
               {"k_mean", layer.codecs.k_mean},
               {"k", TensorJson(layer.codecs.k, layer.k_relative_mse)},
               {"v", TensorJson(layer.codecs.v, layer.v_relative_mse)}};
  AddAttentionJson(layer.attention, &json);
  return json;
}

Json MeanJson(const MeanQuality& mean) {
  Json json = {{"bits_per_value", mean.bits_per_value},
               {"k", {{"relative_mse", mean.k_relative_mse}}},
               {"v", {{"relative_mse", mean.v_relative_mse}}}};
  AddAttentionJson(mean.attention, &json);
  return json;
}

std::string AttentionText(const std::optional<AttentionFidelity>& attention) {
  if (!attention) return absl::StrFormat("%13s%14s", "-", "-");
  return absl::StrFormat("%13.3e%14.3e", attention->output_error, attention->attention_kld);
}

void PrintTable(const std::vector<LayerQuality>& layers, const MeanQuality& mean) {
  absl::PrintF("%-6s%-12s%-12s%6s%12s%12s%13s%14s\n", "layer", "K", "V", "bits", "K rel.MSE",
               "V rel.MSE", "output error", "attention KLD");
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerQuality& layer = layers[i];
    absl::PrintF("%-6d%-12s%-12s%6.3f%12.3e%12.3e%s\n", i, CodecName(layer.codecs.k),
                 CodecName(layer.codecs.v), layer.bits_per_value, layer.k_relative_mse,
                 layer.v_relative_mse, AttentionText(layer.attention));
  }
  absl::PrintF("%-30s%6.3f%12.3e%12.3e%s\n", "mean", mean.bits_per_value, mean.k_relative_mse,
               mean.v_relative_mse, AttentionText(mean.attention));
}

absl::Status RunEval(const EvalOptions& options) {
  TURBOKV_ASSIGN_OR_RETURN(const Capture capture, OpenCapture(options.capture_path));
  TURBOKV_ASSIGN_OR_RETURN(const Policy policy, Policy::Parse(options.policy));
  TURBOKV_ASSIGN_OR_RETURN(const std::vector<LayerCodecs> codecs, policy.Expand(capture.layers));
  std::vector<LayerQuality> layers;
  {
    ThreadPool pool(std::max(1, static_cast<int>(std::thread::hardware_concurrency()) - 1));
    const int64_t layer_bytes = 2 * static_cast<int64_t>(capture.layer[0].k.bytes.size());
    Progress progress("evaluating", Progress::Unit::kBytes, layer_bytes * capture.layers,
                      options.output.progress);
    TURBOKV_ASSIGN_OR_RETURN(
        layers, EvaluateCapture(capture, codecs, &pool, [&] { progress.Add(layer_bytes); }));
  }
  const MeanQuality mean = MeanOf(layers);
  if (!options.output.json) {
    absl::PrintF("policy %s, %d tokens, cold (every token quantized)\n", CanonicalPolicy(codecs),
                 capture.tokens);
    PrintTable(layers, mean);
    return absl::OkStatus();
  }
  Json document = {{"capture", options.capture_path},
                   {"policy", CanonicalPolicy(codecs)},
                   {"tokens", capture.tokens},
                   {"bits_per_value", mean.bits_per_value},
                   {"layers", Json::array()}};
  for (size_t i = 0; i < layers.size(); ++i) {
    document["layers"].push_back(LayerJson(static_cast<int>(i), layers[i]));
  }
  document["mean"] = MeanJson(mean);
  PrintJson(document);
  return absl::OkStatus();
}

}  // namespace

void AddEval(CLI::App* app, Action* action) {
  CLI::App* command =
      app->add_subcommand("eval", "Measure what a policy does to a capture; needs no server");
  auto options = std::make_shared<EvalOptions>();
  command->add_option("CAPTURE", options->capture_path, "Capture (docs/cli.md)")->required();
  AddPolicyOption(command, &options->policy, "Codecs to try, e.g. turbo4")->capture_default_str();
  AddOutputOptions(command, &options->output);
  command->footer(
      "Prints, per layer, the error of K and V relative to their energy and, where the capture "
      "has\n"
      "queries, the relative error of the attention output and the KL divergence of the attention\n"
      "weights (exact||quantized, nats).\n"
      "Example:\n"
      "  turbokv eval examples/data/captures/tiny-d128.safetensors --policy turbo4");
  command->callback([options, action] { *action = [options] { return RunEval(*options); }; });
}

}  // namespace turbokv::cli
