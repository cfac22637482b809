// The decode worker's attention and generation loop against one pass over all tokens.
#include "examples/decode_worker/sequence_attention.h"

#include <gtest/gtest.h>

#include <cmath>

#include "client/capture.h"
#include "examples/decode_worker/generation.h"
#include "examples/demo/setup.h"
#include "examples/llama/blas.h"
#include "tests/unit/examples/test_files.h"

namespace turbokv::examples {
namespace {

class SequenceAttentionTest : public testing::Test {
 protected:
  void SetUp() override {
    SetBlasThreads(1);
    model_ = LlamaModel::Load(ModelDir()).value();
    ids_ = OpenCapture(DataPath("captures/tiny-d128.safetensors"))->token_ids;
  }

  std::shared_ptr<const ResolvedSpec> Spec(const std::string& policy) const {
    return SpecOf(*model_, ModelDir(), policy).value();
  }

  // Logits after ids_[first..] when all before `first` is one exact pass.
  std::vector<float> ExactLogits(size_t first, size_t count) const {
    PromptAttention attention(model_->config());
    const auto hidden =
        model_->Forward(absl::MakeConstSpan(ids_).first(first + count), 0, &attention).value();
    std::vector<float> logits(count * model_->config().vocab);
    model_->Logits(hidden.data() + first * model_->config().hidden, static_cast<int>(count),
                   logits.data());
    return logits;
  }

  // Teacher-forced generation of ids_[prompt..prompt + count), with `held` prompt tokens in
  // `cache`.
  Generation Force(SequenceCache* cache, size_t prompt, int64_t held, int count) const {
    SequenceAttention attention(model_->config(), cache);
    return Generate(*model_, absl::MakeConstSpan(ids_).first(prompt), held, count, &attention,
                    [&](int index, auto) { return ids_[prompt + index]; })
        .value();
  }

  std::unique_ptr<LlamaModel> model_;
  std::vector<int32_t> ids_;
};

TEST_F(SequenceAttentionTest, TokenByTokenOnBf16IsTheWholePass) {
  constexpr int kCount = 30;
  for (size_t prompt : {size_t{1}, size_t{100}, size_t{250}, size_t{500}}) {
    SequenceCache cache(Spec("bf16"), nullptr);
    const Generation generation = Force(&cache, prompt, 0, kCount);
    EXPECT_EQ(cache.tokens(0), static_cast<int64_t>(prompt) + kCount - 1);
    const Generation exact{generation.tokens, ExactLogits(prompt - 1, kCount), 0, 0};
    const Comparison comparison = Compare(exact, generation);
    EXPECT_LT(comparison.mean_kld, 1e-4) << prompt;
    EXPECT_GE(comparison.top1_agreement, 29.0 / 30) << prompt;
  }
}

TEST_F(SequenceAttentionTest, GoesOnWhereAFilledCacheEnds) {
  constexpr size_t kPrompt = 400;
  SequenceCache one(Spec("k=turbo4,v=turbo3"), nullptr);
  const Generation whole = Force(&one, kPrompt, 0, 20);
  // The cache already holds the whole prompt: its last token is run again, not appended again.
  SequenceCache filled(Spec("k=turbo4,v=turbo3"), nullptr);
  Force(&filled, kPrompt, 0, 1);
  ASSERT_EQ(filled.tokens(0), static_cast<int64_t>(kPrompt));
  const Generation rest = Force(&filled, kPrompt, kPrompt, 20);
  EXPECT_EQ(filled.tokens(0), static_cast<int64_t>(kPrompt) + 19);
  EXPECT_LT(Compare(whole, rest).mean_kld, 1e-9);
}

TEST_F(SequenceAttentionTest, FewerBitsCostMore) {
  double previous = 0;
  for (const char* policy : {"int6", "turbo4", "turbo3", "turbo2"}) {
    SequenceCache cache(Spec(policy), nullptr);
    const Generation generation = Force(&cache, 500, 0, 100);
    const Generation exact{generation.tokens, ExactLogits(499, 100), 0, 0};
    const double kld = Compare(exact, generation).mean_kld;
    EXPECT_GT(kld, previous) << policy;
    EXPECT_LT(kld, 0.1) << policy;
    previous = kld;
  }
}

TEST_F(SequenceAttentionTest, RefusesAGap) {
  SequenceCache cache(Spec("bf16"), nullptr);
  SequenceAttention attention(model_->config(), &cache);
  EXPECT_EQ(model_->Forward({1, 2}, 5, &attention).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace turbokv::examples
