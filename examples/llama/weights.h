// The weights of a Llama-architecture model, as float32.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "examples/llama/config.h"

namespace turbokv::examples {

// y = x * weight^T + bias; weight is [outputs][inputs], bias empty or [outputs].
struct Linear {
  int inputs = 0;
  int outputs = 0;
  std::vector<float> weight;
  std::vector<float> bias;
};

struct LayerWeights {
  std::vector<float> attention_norm;
  std::vector<float> mlp_norm;
  Linear q, k, v, o;
  Linear gate, up, down;
};

struct LlamaWeights {
  Linear embedding;  // [vocab][hidden]: a table of rows, and the output matrix when tied
  Linear lm_head;    // empty when tied
  std::vector<float> final_norm;
  std::vector<LayerWeights> layers;
  std::string revision;  // of the file's bytes: other weights, another revision

  const Linear& output() const { return lm_head.weight.empty() ? embedding : lm_head; }
};

// Reads DIR/model.safetensors. INVALID_ARGUMENT or NOT_FOUND names the file and the tensor that is
// missing, of the wrong shape or of the wrong type.
absl::StatusOr<LlamaWeights> LoadWeights(const std::string& model_dir, const LlamaConfig& config);

}  // namespace turbokv::examples
