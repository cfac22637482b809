#include "kernels/format/exponent.h"

#include <cmath>

#include "gtest/gtest.h"

namespace turbokv {
namespace {

int ExponentOfNorm(double norm, Codec codec = Codec::kInt5, bool fp16_source = false) {
  return PageExponent(codec, fp16_source, norm * norm);
}

TEST(PageExponentTest, IsZeroInTheComfortableRange) {
  for (double norm : {0.0, 0x1p-12, 1e-3, 1.0, 11.3, 700.0, 0x1.fffffp14}) {
    EXPECT_EQ(ExponentOfNorm(norm), 0) << norm;
  }
}

TEST(PageExponentTest, ScalesOtherNormsToOne) {
  for (double norm : {0x1p-149, 1e-30, 0x1.fffffp-13, 0x1p15, 0x1.8p15, 0x1.fffffp15, 1e10, 5e39}) {
    const int exponent = ExponentOfNorm(norm);
    const double scaled = std::ldexp(norm, -exponent);
    EXPECT_GE(scaled, 1.0) << norm;
    EXPECT_LT(scaled, 2.0) << norm;
    EXPECT_LE(std::abs(exponent), kMaxPageExponent);
  }
}

TEST(PageExponentTest, CodecsThatNeedNoneTakeNone) {
  EXPECT_EQ(ExponentOfNorm(1e38, Codec::kBf16), 0);
  EXPECT_EQ(ExponentOfNorm(1e38, Codec::kFp8E4m3), 0);
  EXPECT_EQ(ExponentOfNorm(65504, Codec::kFp16, true), 0);
  EXPECT_EQ(ExponentOfNorm(65504, Codec::kFp16, false), 15);
}

}  // namespace
}  // namespace turbokv
