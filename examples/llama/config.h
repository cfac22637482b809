// The shape of a Llama-architecture model, from a Hugging Face config.json.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/attention.h"

namespace turbokv::examples {

struct LlamaConfig {
  int layers = 0;
  int hidden = 0;
  int intermediate = 0;
  int q_heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int vocab = 0;
  int context_tokens = 0;
  float rms_epsilon = 0;
  double rope_theta = 0;
  bool attention_bias = false;
  bool mlp_bias = false;
  bool tied_embeddings = false;
  int32_t end_token = 0;

  int q_dim() const { return q_heads * head_dim; }
  int kv_dim() const { return kv_heads * head_dim; }
  AttentionShape attention_shape() const { return {q_heads, kv_heads, head_dim}; }
  float softmax_scale() const;
};

// Reads DIR/config.json. INVALID_ARGUMENT names the file, the field and its limits; UNIMPLEMENTED
// for an architecture, activation or RoPE variant that this runtime lacks.
absl::StatusOr<LlamaConfig> LoadConfig(const std::string& model_dir);

}  // namespace turbokv::examples
