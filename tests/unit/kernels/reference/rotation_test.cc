#include "kernels/reference/rotation.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/format/rotation.h"

namespace turbokv::reference {
namespace {

std::vector<double> RandomGroup(int channels) {
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal;
  std::vector<double> group(channels);
  for (double& value : group) value = normal(random);
  return group;
}

TEST(RotationTest, UndoesItselfAndKeepsTheNorm) {
  for (int channels : {64, 128}) {
    const std::vector<double> original = RandomGroup(channels);
    std::vector<double> group = original;
    RotateGroup(absl::MakeSpan(group));
    EXPECT_NEAR(SumOfSquares(group), SumOfSquares(original), 1e-9);
    UnrotateGroup(absl::MakeSpan(group));
    for (int i = 0; i < channels; ++i) EXPECT_NEAR(group[i], original[i], 1e-12);
  }
}

// A unit vector turns into a signed column of the Hadamard matrix in natural order.
TEST(RotationTest, ColumnsAreSignedHadamard) {
  for (int channels : {64, 128}) {
    for (int column : {0, 1, 5, 63}) {
      std::vector<double> group(channels);
      group[column] = 1;
      RotateGroup(absl::MakeSpan(group));
      for (int row = 0; row < channels; ++row) {
        const double hadamard = __builtin_popcount(row & column) % 2 == 0 ? 1 : -1;
        const double expected = RotationSign(kRotationSigns1, column) *
                                RotationSign(kRotationSigns2, row) * hadamard /
                                std::sqrt(double(channels));
        EXPECT_DOUBLE_EQ(group[row], expected);
      }
    }
  }
}

TEST(RotationTest, ThresholdsAreBetweenCentroids) {
  for (Codec codec : {Codec::kTurbo2, Codec::kTurbo3, Codec::kTurbo4}) {
    const absl::Span<const double> centroids = TurboCentroids(codec);
    const absl::Span<const double> thresholds = TurboThresholds(codec);
    ASSERT_EQ(centroids.size(), size_t{1} << TraitsOf(codec).code_bits);
    ASSERT_EQ(thresholds.size() + 1, centroids.size());
    for (size_t i = 0; i < thresholds.size(); ++i) {
      EXPECT_NEAR(thresholds[i], (centroids[i] + centroids[i + 1]) / 2, 1e-6);
    }
  }
  EXPECT_EQ(CentroidScale(128), 1.0);
  EXPECT_DOUBLE_EQ(CentroidScale(64), std::sqrt(2.0));
}

}  // namespace
}  // namespace turbokv::reference
