#include "examples/llama/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "examples/llama/blas.h"

namespace turbokv::examples {
namespace {

// One head of one row, in double.
std::vector<double> Oracle(const LlamaConfig& config, const LayerBatch& batch, int row, int head) {
  const int kv_head = head / (config.q_heads / config.kv_heads);
  const int dim = config.head_dim;
  std::vector<double> out(dim), weights;
  double sum = 0;
  for (int j = 0; j <= row; ++j) {
    double dot = 0;
    for (int c = 0; c < dim; ++c) {
      dot += double{batch.q[row * config.q_dim() + head * dim + c]} *
             batch.k[j * config.kv_dim() + kv_head * dim + c];
    }
    weights.push_back(std::exp(dot / std::sqrt(dim)));
    sum += weights.back();
  }
  for (int j = 0; j <= row; ++j) {
    for (int c = 0; c < dim; ++c) {
      out[c] += weights[j] / sum * batch.v[j * config.kv_dim() + kv_head * dim + c];
    }
  }
  return out;
}

TEST(PromptAttention, IsCausalSoftmaxAttention) {
  SetBlasThreads(1);
  LlamaConfig config;
  config.q_heads = 6;
  config.kv_heads = 2;
  config.head_dim = 64;
  for (int tokens : {1, 2, 127, 128, 129, 300}) {
    std::mt19937 random(tokens);
    std::normal_distribution<float> normal;
    std::vector<float> q(tokens * config.q_dim()), k(tokens * config.kv_dim()), v(k.size());
    for (auto* values : {&q, &k, &v}) {
      for (float& value : *values) value = normal(random);
    }
    std::vector<float> out(q.size(), NAN);
    const LayerBatch batch{3, 0, tokens, q.data(), k.data(), v.data(), out.data()};
    int seen_layer = -1;
    PromptAttention attention(config, [&](int layer, const KvView& kv) {
      seen_layer = layer;
      EXPECT_EQ(kv.k, k.data());
      EXPECT_EQ(kv.tokens, tokens);
      return absl::OkStatus();
    });
    ASSERT_TRUE(attention.Attend(batch).ok());
    EXPECT_EQ(seen_layer, 3);
    for (int row : {0, tokens / 2, tokens - 1}) {
      for (int head = 0; head < config.q_heads; ++head) {
        const std::vector<double> expected = Oracle(config, batch, row, head);
        for (int c = 0; c < config.head_dim; ++c) {
          ASSERT_NEAR(out[row * config.q_dim() + head * config.head_dim + c], expected[c], 1e-5)
              << "tokens " << tokens << " row " << row << " head " << head;
        }
      }
    }
  }
}

TEST(PromptAttention, EndsWithTheCallbacksError) {
  LlamaConfig config;
  config.q_heads = config.kv_heads = 1;
  config.head_dim = 64;
  const std::vector<float> values(64);
  std::vector<float> out(64);
  PromptAttention attention(config,
                            [](int, const KvView&) { return absl::CancelledError("enough"); });
  EXPECT_EQ(attention.Attend({0, 0, 1, values.data(), values.data(), values.data(), out.data()}),
            absl::CancelledError("enough"));
  EXPECT_EQ(PromptAttention(config)
                .Attend({0, 5, 1, values.data(), values.data(), values.data(), out.data()})
                .code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace turbokv::examples
