#include "bench/quality/quality.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/capture.h"
#include "examples/llama/blas.h"

namespace turbokv::bench {
namespace {

using ::testing::HasSubstr;

class QualityTest : public testing::Test {
 protected:
  void SetUp() override {
    examples::SetBlasThreads(1);
    const std::string data = std::string(TURBOKV_SOURCE_DIR) + "/examples/data";
    model_ = examples::LlamaModel::Load(data + "/tiny-d128").value();
    ids_ = OpenCapture(data + "/captures/tiny-d128.safetensors")->token_ids;
  }

  absl::StatusOr<QualityReport> Measure(const QualityOptions& options) {
    return MeasureQuality(*model_, ids_, options, &pool_, [](double) {});
  }

  std::unique_ptr<examples::LlamaModel> model_;
  std::vector<int32_t> ids_;
  ThreadPool pool_{1};
};

TEST_F(QualityTest, CountsTheBitsOfValues) {
  const struct {
    const char* policy;
    double bits;
  } cases[] = {
      {"bf16", 16},
      {"k=turbo4,v=turbo4,kmean=off", 4.125},
      {"turbo4", 4.1875},
      {"k=q8_0,v=q8_0,kmean=off", 8.5},
      {"int5", 5.3125},
      {"k=turbo4,v=turbo3", 3.6875},
      {"turbo3", 3.1875},
      {"k=fp8_e4m3,v=fp8_e4m3,kmean=off", 8.002},
      {"k=bf16,v=bf16;0-1:k=turbo4,v=turbo4", (16 + 4.1875) / 2},
  };
  for (const auto& test : cases) {
    const auto layouts = LayoutsOf(test.policy, model_->config());
    ASSERT_TRUE(layouts.ok()) << layouts.status();
    EXPECT_NEAR(BitsOfValues(*layouts), test.bits, 1e-3) << test.policy;
  }
}

TEST_F(QualityTest, FewerBitsDivergeMoreAndAnExactTailHelps) {
  // 300: a page is left unfilled.
  QualityOptions options{{"bf16", "int6", "int5", "turbo4", "turbo3", "turbo2"}, 300, 2};
  const auto cold = Measure(options);
  ASSERT_TRUE(cold.ok()) << cold.status();
  options.exact = Exact::kTail;
  const auto served = Measure(options);
  ASSERT_TRUE(served.ok()) << served.status();
  EXPECT_EQ(cold->exact_perplexity, served->exact_perplexity);
  EXPECT_LT(cold->policies[0].mean_kld, 2e-4);
  for (size_t i = 0; i < options.policies.size(); ++i) {
    const PolicyQuality& row = cold->policies[i];
    EXPECT_EQ(row.policy, options.policies[i]);
    EXPECT_GT(row.p99_kld, row.mean_kld);
    EXPECT_LT(served->policies[i].mean_kld, row.mean_kld / 2) << row.policy;
    EXPECT_GT(served->policies[i].top1_agreement, 0.9) << row.policy;
    if (i == 0) continue;
    EXPECT_GT(row.mean_kld, cold->policies[i - 1].mean_kld) << row.policy;
    EXPECT_LT(row.top1_agreement, cold->policies[i - 1].top1_agreement + 0.01) << row.policy;
  }
  // The design's table has .0025 and .037 on another text.
  EXPECT_NEAR(cold->policies[2].mean_kld, 0.0025, 0.0015);
  EXPECT_NEAR(cold->policies[4].mean_kld, 0.037, 0.02);
}

TEST_F(QualityTest, NothingIsPackedInAShortSequence) {
  const auto served = Measure({{"turbo2"}, 255, 1, Exact::kTail});
  ASSERT_TRUE(served.ok()) << served.status();
  EXPECT_LT(served->policies[0].mean_kld, 1e-6);
  EXPECT_EQ(served->policies[0].top1_agreement, 1);
}

TEST_F(QualityTest, RefusesWhatDoesNotFit) {
  EXPECT_THAT(std::string(Measure({{"int5"}, 640, 2}).status().message()),
              HasSubstr("the text has 640 tokens"));
  EXPECT_THAT(std::string(Measure({{"int5"}, 2049, 1}).status().message()), HasSubstr("2048"));
  EXPECT_FALSE(Measure({{"int5"}, 640, 0}).ok());
  EXPECT_FALSE(Measure({{"nonsense"}, 640, 1}).ok());
  EXPECT_FALSE(Measure({{"int5;9:k=bf16"}, 640, 1}).ok());
  EXPECT_EQ(Measure({{"turbo3_tcq"}, 640, 1}).status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace turbokv::bench
