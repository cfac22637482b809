// Attention inside the model, as something that can be exchanged: exact, on quantized K/V, or on
// packed pages.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "examples/llama/config.h"
#include "kernels/kv_view.h"

namespace turbokv::examples {

// What a layer hands to its attention: consecutive tokens, after RoPE.
struct LayerBatch {
  int layer = 0;
  int64_t first_position = 0;
  int tokens = 0;
  const float* q = nullptr;  // [tokens][q_heads][head_dim]
  const float* k = nullptr;  // [tokens][kv_heads][head_dim]
  const float* v = nullptr;  // likewise
  float* out = nullptr;      // as q
};

class LayerAttention {
 public:
  virtual ~LayerAttention() = default;
  // Fills batch.out. Called once a layer, layers ascending.
  virtual absl::Status Attend(const LayerBatch& batch) = 0;
};

// Keys and values of tokens 0, 1, 2...: [tokens][kv_heads][head_dim].
struct DenseKv {
  const float* k;
  const float* v;
};

// Exact causal attention of the batch's rows first_row..first_row + rows - 1 over `kv`, whose token
// i is the batch's token i.
void AttendRows(const LlamaConfig& config, const LayerBatch& batch, const DenseKv& kv,
                int first_row, int rows);

// Exact causal attention of a whole prompt, or any other batch that begins at position 0. Before
// that, `on_layer` (may be null) gets the layer's K and V in float32.
class PromptAttention : public LayerAttention {
 public:
  using OnLayer = std::function<absl::Status(int layer, const KvView& kv)>;

  explicit PromptAttention(const LlamaConfig& config, OnLayer on_layer = nullptr)
      : config_(config), on_layer_(std::move(on_layer)) {}

  absl::Status Attend(const LayerBatch& batch) override;

 private:
  const LlamaConfig& config_;
  const OnLayer on_layer_;
};

// Rows that one step of dense attention takes: bounds its scores to this many times the context.
inline constexpr int kRowsPerStep = 128;

}  // namespace turbokv::examples
