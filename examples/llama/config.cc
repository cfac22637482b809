#include "examples/llama/config.h"

#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "examples/llama/json_fields.h"
#include "kernels/format/head_groups.h"

namespace turbokv::examples {
namespace {

constexpr int kMaxWidth = 1 << 17;  // of any vector: keeps every product of two inside 64 bits
constexpr int kMaxHeads = 1024;

absl::Status RequireValue(const JsonFields& fields, const std::string& name,
                          const std::string& supported) {
  TURBOKV_ASSIGN_OR_RETURN(const std::string value, fields.StringOr(name, supported));
  if (value == supported) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(fields.where(), ": ", name, " is '", value,
                                               "', only '", supported, "' is implemented"));
}

absl::StatusOr<double> RopeTheta(const JsonFields& fields) {
  // Newer files nest what older ones have at the top.
  for (const char* section : {"rope_parameters", "rope_scaling"}) {
    if (!fields.Has(section)) continue;
    TURBOKV_ASSIGN_OR_RETURN(const JsonFields rope, fields.Object(section));
    TURBOKV_RETURN_IF_ERROR(RequireValue(rope, "rope_type", "default"));
    if (rope.Has("rope_theta")) return rope.Number("rope_theta");
  }
  if (fields.Has("rope_theta")) return fields.Number("rope_theta");
  return 10000.0;
}

absl::Status ReadSizes(const JsonFields& fields, LlamaConfig* config) {
  auto read = [&fields](const char* name, int maximum, int* value) -> absl::Status {
    TURBOKV_ASSIGN_OR_RETURN(const int64_t number, fields.Integer(name, 1, maximum));
    *value = static_cast<int>(number);
    return absl::OkStatus();
  };
  TURBOKV_RETURN_IF_ERROR(read("num_hidden_layers", 1024, &config->layers));
  TURBOKV_RETURN_IF_ERROR(read("hidden_size", kMaxWidth, &config->hidden));
  TURBOKV_RETURN_IF_ERROR(read("intermediate_size", kMaxWidth, &config->intermediate));
  TURBOKV_RETURN_IF_ERROR(read("num_attention_heads", kMaxHeads, &config->q_heads));
  TURBOKV_RETURN_IF_ERROR(read("vocab_size", 1 << 24, &config->vocab));
  TURBOKV_RETURN_IF_ERROR(read("max_position_embeddings", 1 << 24, &config->context_tokens));
  config->kv_heads = config->q_heads;
  if (fields.Has("num_key_value_heads")) {
    TURBOKV_RETURN_IF_ERROR(read("num_key_value_heads", kMaxHeads, &config->kv_heads));
  }
  config->head_dim = config->hidden / config->q_heads;
  if (fields.Has("head_dim")) {
    TURBOKV_RETURN_IF_ERROR(read("head_dim", kMaxHeadDim, &config->head_dim));
  }
  if (config->q_heads % config->kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(fields.where(), ": num_attention_heads ", config->q_heads,
                     " is no multiple of num_key_value_heads ", config->kv_heads));
  }
  if (absl::Status valid = ValidateHeadDim(config->head_dim); !valid.ok()) {
    return absl::Status(valid.code(), absl::StrCat(fields.where(), ": ", valid.message()));
  }
  return absl::OkStatus();
}

}  // namespace

float LlamaConfig::softmax_scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }

absl::StatusOr<LlamaConfig> LoadConfig(const std::string& model_dir) {
  const std::string path = model_dir + "/config.json";
  TURBOKV_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonObject(path));
  const JsonFields fields(&json, path);
  TURBOKV_RETURN_IF_ERROR(RequireValue(fields, "model_type", "llama"));
  TURBOKV_RETURN_IF_ERROR(RequireValue(fields, "hidden_act", "silu"));

  LlamaConfig config;
  TURBOKV_RETURN_IF_ERROR(ReadSizes(fields, &config));
  TURBOKV_ASSIGN_OR_RETURN(const double epsilon, fields.Number("rms_norm_eps"));
  config.rms_epsilon = static_cast<float>(epsilon);
  TURBOKV_ASSIGN_OR_RETURN(config.rope_theta, RopeTheta(fields));
  TURBOKV_ASSIGN_OR_RETURN(config.attention_bias, fields.BoolOr("attention_bias", false));
  TURBOKV_ASSIGN_OR_RETURN(config.mlp_bias, fields.BoolOr("mlp_bias", false));
  TURBOKV_ASSIGN_OR_RETURN(config.tied_embeddings, fields.BoolOr("tie_word_embeddings", false));
  if (fields.Has("eos_token_id")) {
    TURBOKV_ASSIGN_OR_RETURN(const int64_t end,
                             fields.Integer("eos_token_id", 0, config.vocab - 1));
    config.end_token = static_cast<int32_t>(end);
  }
  if (!(config.rope_theta > 0) || !std::isfinite(config.rope_theta)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": rope_theta is ", config.rope_theta, ", expected a positive number"));
  }
  return config;
}

}  // namespace turbokv::examples
