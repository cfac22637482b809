#include "examples/llama/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/examples/test_files.h"

namespace turbokv::examples {
namespace {

using ::testing::HasSubstr;

TEST(LoadConfig, ReadsTheTinyModel) {
  const auto config = LoadConfig(ModelDir());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->layers, 4);
  EXPECT_EQ(config->hidden, 256);
  EXPECT_EQ(config->q_heads, 4);
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_EQ(config->context_tokens, 2048);
  EXPECT_EQ(config->rope_theta, 10000.0);
  EXPECT_TRUE(config->tied_embeddings);
  EXPECT_FALSE(config->attention_bias);
}

TEST(LoadConfig, TakesThetaFromTheTopInOlderFiles) {
  const ModelCopy copy;
  WriteAll(copy.path("config.json"), R"({"model_type": "llama", "hidden_size": 512,
      "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 10,
      "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "rope_theta": 500000,
      "rope_scaling": null})");
  const auto config = LoadConfig(copy.dir());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope_theta, 500000.0);
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_EQ(config->kv_heads, 4);
}

TEST(LoadConfig, NamesFieldValueAndLimit) {
  const struct {
    const char* from;
    const char* to;
    const char* message;
  } cases[] = {
      {"\"num_hidden_layers\": 4", "\"num_hidden_layers\": 0", "num_hidden_layers is 0"},
      {"\"num_hidden_layers\": 4", "\"num_hidden_layers\": \"4\"", "num_hidden_layers is \"4\""},
      {"\"hidden_size\": 256", "\"hidden_size\": 99999999999999999999", "hidden_size"},
      {"\"hidden_size\": 256", "\"hidden_sise\": 256", "hidden_size is missing"},
      {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "no multiple"},
      {"\"head_dim\": 128", "\"head_dim\": 100", "100"},
      {"\"silu\"", "\"gelu\"", "gelu"},
      {"\"model_type\": \"llama\"", "\"model_type\": \"qwen2\"", "qwen2"},
      {"\"rope_type\": \"default\"", "\"rope_type\": \"llama3\"", "llama3"},
      {"10000.0", "-1", "rope_theta"},
      {"{", "", "not a JSON object"},
  };
  for (const auto& test : cases) {
    const ModelCopy copy;
    copy.Replace("config.json", test.from, test.to);
    const auto config = LoadConfig(copy.dir());
    ASSERT_FALSE(config.ok()) << test.to;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(test.message));
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("config.json"));
  }
}

}  // namespace
}  // namespace turbokv::examples
