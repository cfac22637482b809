// A Llama-architecture decoder in float32 with exchangeable attention.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "examples/llama/attention.h"
#include "examples/llama/config.h"
#include "examples/llama/weights.h"

namespace turbokv::examples {

// Immutable once loaded: any number of threads may run passes at once.
class LlamaModel {
 public:
  // Reads config.json and model.safetensors. Errors name the file and what is wrong with it.
  static absl::StatusOr<std::unique_ptr<LlamaModel>> Load(const std::string& model_dir);

  LlamaModel(LlamaConfig config, LlamaWeights weights)
      : config_(config), weights_(std::move(weights)) {}

  const LlamaConfig& config() const { return config_; }
  const std::string& revision() const { return weights_.revision; }

  // Runs the tokens at positions first_position... through all layers. Returns the normalised
  // hidden states, [tokens][hidden]. INVALID_ARGUMENT: a token outside the vocabulary, or a
  // position outside the context.
  absl::StatusOr<std::vector<float>> Forward(absl::Span<const int32_t> token_ids,
                                             int64_t first_position,
                                             LayerAttention* attention) const;

  // Logits [rows][vocab] of `rows` hidden states.
  void Logits(const float* hidden, int rows, float* logits) const;

 private:
  const LlamaConfig config_;
  const LlamaWeights weights_;
};

}  // namespace turbokv::examples
