#include "examples/llama/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "client/capture.h"
#include "examples/llama/blas.h"
#include "examples/llama/distribution.h"
#include "tests/unit/examples/test_files.h"

namespace turbokv::examples {
namespace {

using ::testing::HasSubstr;

// Keeps what the layers compute.
class RecordingAttention : public PromptAttention {
 public:
  struct Layer {
    std::vector<float> q, k, v;
  };

  explicit RecordingAttention(const LlamaConfig& config)
      : PromptAttention(config), config_(config) {}

  absl::Status Attend(const LayerBatch& batch) override {
    const size_t q_values = static_cast<size_t>(batch.tokens) * config_.q_dim();
    const size_t kv_values = static_cast<size_t>(batch.tokens) * config_.kv_dim();
    layers.push_back({{batch.q, batch.q + q_values},
                      {batch.k, batch.k + kv_values},
                      {batch.v, batch.v + kv_values}});
    return PromptAttention::Attend(batch);
  }

  std::vector<Layer> layers;

 private:
  const LlamaConfig& config_;
};

// How far `ours` [tokens][heads][dim] is from the captured [heads][last tokens][dim], relative to
// the captured values' root mean square.
double RelativeError(const Tensor& captured, const std::vector<float>& ours) {
  const std::vector<float> expected = ToFloats(captured).value();
  const int64_t heads = captured.shape[0];
  const int64_t rows = captured.shape[1];
  const int64_t dim = captured.shape[2];
  const int64_t skipped = static_cast<int64_t>(ours.size()) / (heads * dim) - rows;
  double error = 0;
  double energy = 0;
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t c = 0; c < dim; ++c) {
        const double value = expected[(head * rows + row) * dim + c];
        const double difference = ours[((skipped + row) * heads + head) * dim + c] - value;
        error += difference * difference;
        energy += value * value;
      }
    }
  }
  return std::sqrt(error / energy);
}

TEST(LlamaModel, ComputesTheCapturedKeysValuesAndQueries) {
  SetBlasThreads(1);
  const auto model = LlamaModel::Load(ModelDir());
  ASSERT_TRUE(model.ok()) << model.status();
  const auto capture = OpenCapture(DataPath("captures/tiny-d128.safetensors"));
  ASSERT_TRUE(capture.ok()) << capture.status();
  RecordingAttention attention((*model)->config());
  const auto hidden = (*model)->Forward(capture->token_ids, 0, &attention);
  ASSERT_TRUE(hidden.ok()) << hidden.status();
  ASSERT_EQ(attention.layers.size(), capture->layer.size());
  for (size_t layer = 0; layer < capture->layer.size(); ++layer) {
    // Rounding to bf16 leaves a relative error of about 2^-9 / sqrt(3) = 0.0011... 0.0017.
    EXPECT_LT(RelativeError(capture->layer[layer].k, attention.layers[layer].k), 0.003) << layer;
    EXPECT_LT(RelativeError(capture->layer[layer].v, attention.layers[layer].v), 0.003) << layer;
    EXPECT_LT(RelativeError(*capture->layer[layer].q, attention.layers[layer].q), 0.003) << layer;
  }
}

TEST(LlamaModel, PredictsTheSample) {
  SetBlasThreads(1);
  const auto model = LlamaModel::Load(ModelDir()).value();
  const std::vector<int32_t> ids =
      OpenCapture(DataPath("captures/tiny-d128.safetensors"))->token_ids;
  PromptAttention attention(model->config());
  const std::vector<float> hidden = model->Forward(ids, 0, &attention).value();
  const size_t vocab = model->config().vocab;
  std::vector<float> logits(ids.size() * vocab);
  model->Logits(hidden.data(), static_cast<int>(ids.size()), logits.data());
  double sum = 0;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    const auto row = absl::MakeConstSpan(logits).subspan(i * vocab, vocab);
    sum += LogSumExp(row) - row[ids[i + 1]];
  }
  // Source code that it has not seen; a random guess has perplexity 4096.
  EXPECT_LT(std::exp(sum / static_cast<double>(ids.size() - 1)), 8.0);
}

TEST(LlamaModel, RefusesTokensAndPositionsOutOfRange) {
  const auto model = LlamaModel::Load(ModelDir()).value();
  PromptAttention attention(model->config());
  for (const std::vector<int32_t>& ids : {std::vector<int32_t>{4096}, {-1}, {}}) {
    EXPECT_EQ(model->Forward(ids, 0, &attention).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_THAT(
      std::string(model->Forward(std::vector<int32_t>(2049, 1), 0, &attention).status().message()),
      HasSubstr("2048"));
}

TEST(LlamaModel, NamesTheDamageInAModelFile) {
  const ModelCopy copy;
  const std::string path = copy.path("model.safetensors");
  const std::string whole = ReadAll(path);
  WriteAll(path, whole.substr(0, whole.size() - 100));
  EXPECT_THAT(std::string(LlamaModel::Load(copy.dir()).status().message()), HasSubstr(path));
  WriteAll(path, "");
  EXPECT_THAT(std::string(LlamaModel::Load(copy.dir()).status().message()), HasSubstr(path));
  std::filesystem::remove(path);
  EXPECT_EQ(LlamaModel::Load(copy.dir()).status().code(), absl::StatusCode::kNotFound);
}

TEST(LlamaModel, NamesTheTensorThatDoesNotFitTheConfig) {
  const struct {
    const char* from;
    const char* to;
    const char* message;
  } cases[] = {
      {"\"intermediate_size\": 768", "\"intermediate_size\": 640", "gate_proj.weight has shape"},
      {"\"attention_bias\": false", "\"attention_bias\": true", "q_proj.bias"},
      {"\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", "lm_head.weight"},
      {"\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5", "model.layers.4"},
  };
  for (const auto& test : cases) {
    const ModelCopy copy;
    copy.Replace("config.json", test.from, test.to);
    const auto model = LlamaModel::Load(copy.dir());
    ASSERT_FALSE(model.ok()) << test.to;
    EXPECT_THAT(std::string(model.status().message()), HasSubstr(test.message));
  }
}

}  // namespace
}  // namespace turbokv::examples
