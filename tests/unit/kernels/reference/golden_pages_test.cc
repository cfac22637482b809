// Freezes the bytes of every codec for every head_dim. A change here is a new format version.
#include <array>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/format/crc32c.h"
#include "tests/unit/kernels/reference/test_values.h"

namespace turbokv {
namespace {

using testing::Encode;
using testing::LayoutOf;
using testing::Parse;
using testing::ShapeFor;
using testing::TestKv;
using testing::ValueFunction;
using testing::ValuePosition;

// Sums of four uniform integers: exact, the same on every platform, roughly normal. K gets a common
// part, so that its mean is worth something.
ValueFunction GoldenValues() {
  return [random = std::mt19937(20240229)](const ValuePosition& p) mutable {
    int sum = -4 * 128;
    for (int i = 0; i < 4; ++i) sum += static_cast<int>(random() >> 24);
    const double common = p.tensor == PageTensor::kK ? p.channel % 9 - 2.5 : 0.0;
    return sum / 128.0 + common;
  };
}

struct GoldenRow {
  Codec codec;
  std::array<uint32_t, kHeadDims.size()> slices_crc;  // head_dim 64, 80, 96, 112, 128, 192, 256
};

constexpr GoldenRow kGolden[] = {
    {Codec::kBf16,
     {0x6bda59b8, 0xcf861f4b, 0xd79f3c23, 0xe2678a71, 0xc696a10c, 0x13ecb09c, 0x997426d9}},
    {Codec::kFp16,
     {0xee258aee, 0x618e61f8, 0xd6ce21ec, 0x8c850364, 0x5e662332, 0xc7826dae, 0xc9348ec7}},
    {Codec::kFp8E4m3,
     {0xdf3d1ac5, 0xdaa233c2, 0xec20fc29, 0x62931a7a, 0xb8f77ee8, 0x384ed937, 0x6721107d}},
    {Codec::kQ8_0,
     {0x3ca3ce35, 0x6eeb9680, 0x667e1df2, 0xa922ec14, 0xe8f709de, 0xc635408a, 0x9cd7376a}},
    {Codec::kQ4_0,
     {0x2834d20e, 0x3fb1402f, 0x71f948a9, 0x067a188d, 0xa631b8d1, 0x4e331ed6, 0x181887e0}},
    {Codec::kInt8,
     {0x51846911, 0x93840de6, 0xe997e811, 0x6f4bf03e, 0x1c2d1213, 0x16701ebd, 0xc461a1eb}},
    {Codec::kInt6,
     {0x8dadb50c, 0x9d19906d, 0x1e21c707, 0x2baf7f88, 0x60f374f1, 0x0faf7a19, 0x05addf44}},
    {Codec::kInt5,
     {0x24d8307c, 0x8708570c, 0x97be6e7b, 0x17acfde7, 0xbd138c33, 0xf526ed26, 0x2531e799}},
    {Codec::kInt4,
     {0x2cc2944e, 0x2fcce774, 0xbbdb1584, 0x380642ef, 0x3d2dac85, 0x1f44fe09, 0x4be6eb4d}},
    {Codec::kTurbo4,
     {0x28ab413c, 0x0eee99f9, 0xea0cdbf8, 0xe31b58d0, 0x0eb2392f, 0xd48d6bc8, 0x77e9ece2}},
    {Codec::kTurbo3,
     {0xa225b83a, 0xd6fc8a5e, 0xd3537e2a, 0x232c2b75, 0xa8a606f1, 0x76cbe192, 0xcfeb0a84}},
    {Codec::kTurbo2,
     {0xde18feec, 0x39906ee8, 0xa3ac60b4, 0x5c5de4c7, 0x9be51935, 0xb98c711e, 0x990cb6a3}},
};

std::vector<uint8_t> GoldenPage(Codec codec, int head_dim) {
  const TestKv kv(ValueType::kFp32, 70, 2, head_dim, GoldenValues());
  return Encode(ShapeFor(codec, codec, kv), kv, {5, 2, 256, 77});
}

TEST(GoldenPagesTest, EveryCodecIsFrozen) {
  EXPECT_EQ(std::size(kGolden), testing::ImplementedCodecs().size());
  for (const GoldenRow& row : kGolden) {
    for (size_t i = 0; i < kHeadDims.size(); ++i) {
      const std::vector<uint8_t> page = GoldenPage(row.codec, kHeadDims[i]);
      const uint32_t crc = Crc32c(absl::MakeSpan(page).subspan(kPageHeaderBytes));
      EXPECT_EQ(crc, row.slices_crc[i]) << CodecName(row.codec) << " head_dim " << kHeadDims[i]
                                        << " is now 0x" << std::hex << crc;
    }
  }
}

// The first bytes of each section of one page, to tell what a changed CRC is about.
TEST(GoldenPagesTest, SectionsBeginAsTheyAlwaysDid) {
  const std::vector<uint8_t> page = GoldenPage(Codec::kTurbo3, 128);
  const PageView view = Parse(page);
  const auto first_bytes = [&](const Section& section) {
    const uint8_t* begin = view.Slice(1) + section.offset_bytes;
    return std::vector<uint8_t>(begin, begin + 8);
  };
  const PageLayout& layout = view.layout;
  using ::testing::ElementsAre;
  EXPECT_THAT(first_bytes(layout.k_codes),
              ElementsAre(0x7c, 0xeb, 0x3a, 0x5b, 0x34, 0xc9, 0x4a, 0x0a));
  EXPECT_THAT(first_bytes(layout.v_codes),
              ElementsAre(0xa4, 0x66, 0x32, 0xb9, 0xa8, 0xa6, 0x5d, 0x8b));
  EXPECT_THAT(first_bytes(layout.k_scales),
              ElementsAre(0xa4, 0x4a, 0xd6, 0x49, 0xc4, 0x4b, 0xe5, 0x4a));
  EXPECT_THAT(first_bytes(layout.v_scales),
              ElementsAre(0xa9, 0x4a, 0xc5, 0x4a, 0xa1, 0x4a, 0x61, 0x4a));
  EXPECT_THAT(first_bytes(layout.k_mean),
              ElementsAre(0xd5, 0xc0, 0x63, 0xbe, 0x0a, 0xb6, 0x32, 0x35));
}

}  // namespace
}  // namespace turbokv
