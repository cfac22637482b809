#include "examples/llama/distribution.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace turbokv::examples {
namespace {

TEST(Distribution, DivergenceIsThatOfTheProbabilities) {
  const std::vector<float> base = {std::log(0.5f), std::log(0.25f), std::log(0.25f)};
  const std::vector<float> other = {std::log(0.25f), std::log(0.5f), std::log(0.25f)};
  EXPECT_NEAR(KlDivergence(base, other), 0.25 * std::log(2.0), 1e-6);
  EXPECT_EQ(KlDivergence(base, base), 0.0);
  // Logits may carry any constant, however large.
  const std::vector<float> shifted = {base[0] + 1000, base[1] + 1000, base[2] + 1000};
  EXPECT_NEAR(KlDivergence(base, shifted), 0.0, 1e-3);
  EXPECT_NEAR(LogSumExp(shifted), 1000.0, 1e-3);
  EXPECT_EQ(MostLikely(other), 1);
}

TEST(Sampler, SameSeedSameTokens) {
  const std::vector<float> logits = {0, 1, 2, 3, 2, 1, 0, 0};
  std::vector<int32_t> draws[3];
  for (int i = 0; i < 3; ++i) {
    Sampler sampler(0.8, i == 2 ? 6 : 5);
    for (int n = 0; n < 100; ++n) draws[i].push_back(sampler.Draw(logits, 0));
  }
  EXPECT_EQ(draws[0], draws[1]);
  EXPECT_NE(draws[0], draws[2]);
}

TEST(Sampler, DrawsByProbabilityAndNeverTheExcluded) {
  const std::vector<float> logits = {5, std::log(1.0f), std::log(3.0f)};
  Sampler sampler(1.0, 11);
  int counts[3] = {};
  for (int n = 0; n < 40000; ++n) ++counts[sampler.Draw(logits, 0)];
  EXPECT_EQ(counts[0], 0);
  EXPECT_NEAR(counts[2] / 40000.0, 0.75, 0.01);
  // Half the temperature squares the odds.
  Sampler colder(0.5, 11);
  int often = 0;
  for (int n = 0; n < 40000; ++n) often += colder.Draw(logits, 0) == 2;
  EXPECT_NEAR(often / 40000.0, 0.9, 0.01);
}

}  // namespace
}  // namespace turbokv::examples
