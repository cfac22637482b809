#include "examples/llama/weights.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "client/safetensors.h"
#include "kernels/format/crc32c.h"

namespace turbokv::examples {
namespace {

class WeightReader {
 public:
  WeightReader(const SafetensorsFile* file, std::string path)
      : file_(file), path_(std::move(path)) {}

  absl::StatusOr<std::vector<float>> Read(const std::string& name,
                                          const std::vector<int64_t>& shape) {
    TURBOKV_ASSIGN_OR_RETURN(const Tensor tensor, file_->Get(name));
    if (tensor.shape != shape) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": ", name, " has shape [", absl::StrJoin(tensor.shape, ", "),
                       "], config.json asks for [", absl::StrJoin(shape, ", "), "]"));
    }
    return ToFloats(tensor);
  }

  absl::Status ReadLinear(const std::string& name, int inputs, int outputs, bool bias,
                          Linear* linear) {
    linear->inputs = inputs;
    linear->outputs = outputs;
    TURBOKV_ASSIGN_OR_RETURN(linear->weight, Read(name + ".weight", {outputs, inputs}));
    if (bias) {
      TURBOKV_ASSIGN_OR_RETURN(linear->bias, Read(name + ".bias", {outputs}));
    }
    return absl::OkStatus();
  }

 private:
  const SafetensorsFile* file_;
  std::string path_;
};

absl::Status ReadLayer(WeightReader& reader, const LlamaConfig& config, int index,
                       LayerWeights* layer) {
  const std::string prefix = absl::StrCat("model.layers.", index, ".");
  const std::string attention = prefix + "self_attn.";
  const std::string mlp = prefix + "mlp.";
  const int hidden = config.hidden;
  const int inner = config.intermediate;
  TURBOKV_ASSIGN_OR_RETURN(layer->attention_norm,
                           reader.Read(prefix + "input_layernorm.weight", {hidden}));
  TURBOKV_ASSIGN_OR_RETURN(layer->mlp_norm,
                           reader.Read(prefix + "post_attention_layernorm.weight", {hidden}));
  struct Part {
    std::string name;
    int inputs, outputs;
    bool bias;
    Linear* linear;
  };
  const Part parts[] = {
      {attention + "q_proj", hidden, config.q_dim(), config.attention_bias, &layer->q},
      {attention + "k_proj", hidden, config.kv_dim(), config.attention_bias, &layer->k},
      {attention + "v_proj", hidden, config.kv_dim(), config.attention_bias, &layer->v},
      {attention + "o_proj", config.q_dim(), hidden, config.attention_bias, &layer->o},
      {mlp + "gate_proj", hidden, inner, config.mlp_bias, &layer->gate},
      {mlp + "up_proj", hidden, inner, config.mlp_bias, &layer->up},
      {mlp + "down_proj", inner, hidden, config.mlp_bias, &layer->down},
  };
  for (const Part& part : parts) {
    TURBOKV_RETURN_IF_ERROR(
        reader.ReadLinear(part.name, part.inputs, part.outputs, part.bias, part.linear));
  }
  return absl::OkStatus();
}

// CRC32C of every tensor's bytes: enough to keep two trainings of one model apart.
std::string RevisionOf(const SafetensorsFile& file) {
  uint32_t crc = 0;
  for (const auto& [name, tensor] : file.tensors()) crc = ExtendCrc32c(crc, tensor.bytes);
  return absl::StrFormat("crc32c-%08x", crc);
}

}  // namespace

absl::StatusOr<LlamaWeights> LoadWeights(const std::string& model_dir, const LlamaConfig& config) {
  const std::string path = model_dir + "/model.safetensors";
  TURBOKV_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(path));
  WeightReader reader(&file, path);
  LlamaWeights weights;
  TURBOKV_RETURN_IF_ERROR(reader.ReadLinear("model.embed_tokens", config.hidden, config.vocab,
                                            /*bias=*/false, &weights.embedding));
  if (!config.tied_embeddings) {
    TURBOKV_RETURN_IF_ERROR(reader.ReadLinear("lm_head", config.hidden, config.vocab,
                                              /*bias=*/false, &weights.lm_head));
  }
  TURBOKV_ASSIGN_OR_RETURN(weights.final_norm, reader.Read("model.norm.weight", {config.hidden}));
  weights.layers.resize(config.layers);
  for (int layer = 0; layer < config.layers; ++layer) {
    TURBOKV_RETURN_IF_ERROR(ReadLayer(reader, config, layer, &weights.layers[layer]));
  }
  weights.revision = RevisionOf(file);
  return weights;
}

}  // namespace turbokv::examples
