#include "examples/llama/model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "examples/llama/blas.h"
#include "examples/llama/rope.h"

namespace turbokv::examples {
namespace {

using Rows = std::vector<float>;  // row-major activations

Rows RmsNorm(const Rows& x, const std::vector<float>& weight, float epsilon) {
  const size_t width = weight.size();
  Rows normalised(x.size());
  for (size_t begin = 0; begin < x.size(); begin += width) {
    double energy = 0;
    for (size_t i = 0; i < width; ++i) energy += double{x[begin + i]} * x[begin + i];
    const float scale = static_cast<float>(1.0 / std::sqrt(energy / width + epsilon));
    for (size_t i = 0; i < width; ++i) normalised[begin + i] = x[begin + i] * scale * weight[i];
  }
  return normalised;
}

Rows Apply(const Linear& linear, const Rows& x) {
  const int rows = static_cast<int>(x.size() / linear.inputs);
  Rows y(static_cast<size_t>(rows) * linear.outputs);
  MultiplyTransposed(rows, linear.outputs, linear.inputs, 1.0f, {x.data(), linear.inputs},
                     {linear.weight.data(), linear.inputs}, y.data(), linear.outputs);
  if (!linear.bias.empty()) {
    for (size_t i = 0; i < y.size(); ++i) y[i] += linear.bias[i % linear.outputs];
  }
  return y;
}

void Add(const Rows& x, Rows* sum) {
  for (size_t i = 0; i < x.size(); ++i) (*sum)[i] += x[i];
}

// SwiGLU.
Rows Mlp(const LayerWeights& layer, const Rows& x) {
  Rows gate = Apply(layer.gate, x);
  const Rows up = Apply(layer.up, x);
  for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1.0f + std::exp(-gate[i]));
  return Apply(layer.down, gate);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LlamaModel>> LlamaModel::Load(const std::string& model_dir) {
  TURBOKV_ASSIGN_OR_RETURN(const LlamaConfig config, LoadConfig(model_dir));
  TURBOKV_ASSIGN_OR_RETURN(LlamaWeights weights, LoadWeights(model_dir, config));
  return std::make_unique<LlamaModel>(config, std::move(weights));
}

absl::StatusOr<std::vector<float>> LlamaModel::Forward(absl::Span<const int32_t> token_ids,
                                                       int64_t first_position,
                                                       LayerAttention* attention) const {
  if (token_ids.empty()) return absl::InvalidArgumentError("a pass needs at least one token");
  const int64_t end = first_position + static_cast<int64_t>(token_ids.size());
  if (first_position < 0 || end > config_.context_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("positions ", first_position, "..", end - 1,
                                                   " lie outside the model's context of ",
                                                   config_.context_tokens, " tokens"));
  }
  const int tokens = static_cast<int>(token_ids.size());
  Rows x(static_cast<size_t>(tokens) * config_.hidden);
  for (int i = 0; i < tokens; ++i) {
    if (token_ids[i] < 0 || token_ids[i] >= config_.vocab) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", i, " is ", token_ids[i], ", the vocabulary has ", config_.vocab));
    }
    const float* row =
        weights_.embedding.weight.data() + static_cast<size_t>(token_ids[i]) * config_.hidden;
    std::copy_n(row, config_.hidden, x.begin() + static_cast<size_t>(i) * config_.hidden);
  }
  const RopeTable rope(config_.head_dim, config_.rope_theta, first_position, tokens);
  for (int index = 0; index < config_.layers; ++index) {
    const LayerWeights& layer = weights_.layers[index];
    const Rows normalised = RmsNorm(x, layer.attention_norm, config_.rms_epsilon);
    Rows q = Apply(layer.q, normalised);
    Rows k = Apply(layer.k, normalised);
    const Rows v = Apply(layer.v, normalised);
    rope.Apply(config_.q_heads, q.data());
    rope.Apply(config_.kv_heads, k.data());
    Rows attended(q.size());
    TURBOKV_RETURN_IF_ERROR(attention->Attend(
        {index, first_position, tokens, q.data(), k.data(), v.data(), attended.data()}));
    Add(Apply(layer.o, attended), &x);
    Add(Mlp(layer, RmsNorm(x, layer.mlp_norm, config_.rms_epsilon)), &x);
  }
  return RmsNorm(x, weights_.final_norm, config_.rms_epsilon);
}

void LlamaModel::Logits(const float* hidden, int rows, float* logits) const {
  const Linear& output = weights_.output();
  MultiplyTransposed(rows, output.outputs, output.inputs, 1.0f, {hidden, output.inputs},
                     {output.weight.data(), output.inputs}, logits, output.outputs);
}

}  // namespace turbokv::examples
