#include "kernels/format/small_floats.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace turbokv {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(SmallFloatsTest, EveryFp16RoundTrips) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = Fp16ToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_GT(bits & 0x7fff, 0x7c00u);
      EXPECT_TRUE(std::isnan(Fp16ToFloat(DoubleToFp16(value))));
    } else {
      EXPECT_EQ(DoubleToFp16(value), bits);
    }
  }
}

TEST(SmallFloatsTest, EveryBf16RoundTrips) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = Bf16ToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(Bf16ToFloat(FloatToBf16(value))));
    } else {
      EXPECT_EQ(FloatToBf16(value), bits);
    }
  }
}

TEST(SmallFloatsTest, EveryFp8RoundTrips) {
  for (uint32_t bits = 0; bits < 0x100; ++bits) {
    const float value = Fp8E4m3ToFloat(static_cast<uint8_t>(bits));
    if ((bits & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value));
    } else {
      EXPECT_EQ(FloatToFp8E4m3(value), bits);
    }
  }
  EXPECT_EQ(Fp8E4m3ToFloat(0x7e), 448.0f);
  EXPECT_EQ(Fp8E4m3ToFloat(0x01), 0x1p-9f);
  EXPECT_EQ(Fp8E4m3ToFloat(0x38), 1.0f);
}

// Halfway between neighbours goes to the even one; a hair to either side goes to that side.
TEST(SmallFloatsTest, TiesGoToEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const double low = Fp16ToFloat(static_cast<uint16_t>(bits));
    const double high = Fp16ToFloat(static_cast<uint16_t>(bits + 1));
    const double middle = (low + high) / 2;
    EXPECT_EQ(DoubleToFp16(middle), bits + (bits & 1));
    EXPECT_EQ(DoubleToFp16(std::nextafter(middle, low)), bits);
    EXPECT_EQ(DoubleToFp16(std::nextafter(middle, high)), bits + 1);
    EXPECT_EQ(DoubleToFp16(-middle), (bits + (bits & 1)) | 0x8000);
  }
  for (uint32_t bits = 0; bits < 0x7e; ++bits) {
    const float low = Fp8E4m3ToFloat(static_cast<uint8_t>(bits));
    const float middle = (low + Fp8E4m3ToFloat(static_cast<uint8_t>(bits + 1))) / 2;
    EXPECT_EQ(FloatToFp8E4m3(middle), bits + (bits & 1));
    EXPECT_EQ(FloatToFp8E4m3(std::nextafter(middle, 1000.0f)), bits + 1);
  }
  EXPECT_EQ(FloatToBf16(1.00390625f), 0x3f80);  // 1 + 2^-8
  EXPECT_EQ(FloatToBf16(1.01171875f), 0x3f82);  // 1 + 3 * 2^-8
}

TEST(SmallFloatsTest, Extremes) {
  EXPECT_EQ(DoubleToFp16(65519.99), 0x7bff);
  EXPECT_EQ(DoubleToFp16(65520.0), 0x7c00);
  EXPECT_EQ(DoubleToFp16(1e300), 0x7c00);
  EXPECT_EQ(DoubleToFp16(-1e300), 0xfc00);
  EXPECT_EQ(DoubleToFp16(0x1p-25), 0x0000);
  EXPECT_EQ(DoubleToFp16(-0x1p-25), 0x8000);
  EXPECT_EQ(DoubleToFp16(5e-324), 0x0000);
  EXPECT_EQ(DoubleToFiniteFp16(1e300), 0x7bff);
  EXPECT_EQ(DoubleToFiniteFp16(-1e300), 0xfbff);
  EXPECT_EQ(FloatToBf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(FloatToFiniteBf16(std::numeric_limits<float>::max()), 0x7f7f);
  EXPECT_EQ(FloatToFiniteBf16(-std::numeric_limits<float>::max()), 0xff7f);
  EXPECT_EQ(FloatToFp8E4m3(1e9f), 0x7e);
  EXPECT_EQ(FloatToFp8E4m3(-kInfinity), 0xfe);
  EXPECT_EQ(FloatToFp8E4m3(-0.0f), 0x80);
}

// 1 + 2^-11 + 2^-40 is above the tie, but rounding it to float first would lose that.
TEST(SmallFloatsTest, DoubleIsRoundedOnce) {
  EXPECT_EQ(DoubleToFp16(1 + 0x1p-11 + 0x1p-40), 0x3c01);
  EXPECT_EQ(FloatToFp16(static_cast<float>(1 + 0x1p-11 + 0x1p-40)), 0x3c00);
}

}  // namespace
}  // namespace turbokv
