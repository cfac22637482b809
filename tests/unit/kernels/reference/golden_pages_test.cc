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
     {0xf476bbd9, 0xc3b626b5, 0x36d296c4, 0xad2a85cc, 0x2c43bc0a, 0x08d820d0, 0x5f7d8d21}},
    {Codec::kQ8_0,
     {0x6d76a0fd, 0x059ce6f2, 0xf88f19aa, 0x7a8d8058, 0x783cc513, 0x54abec75, 0x2a1c4c33}},
    {Codec::kQ4_0,
     {0xc3fed393, 0x7270b0e4, 0x1c1720b2, 0x7f166b00, 0xf22c89b4, 0xa1167922, 0x8e54a69c}},
    {Codec::kInt8,
     {0x623c494f, 0x5c2e0802, 0xa8ac5301, 0x44b5450d, 0x71e76fac, 0xb180902a, 0x572bcdfd}},
    {Codec::kInt6,
     {0x9f19fc5b, 0xb4b9bfae, 0x2b1d489a, 0x635c68b1, 0x1b27bb52, 0x2c46eb8e, 0x817d5e19}},
    {Codec::kInt5,
     {0xa055905b, 0x886f171e, 0x072886be, 0x169afe45, 0xc7227072, 0x13c6e886, 0x48736502}},
    {Codec::kInt4,
     {0x2accd5b3, 0x31eeb9bf, 0x6f7a248b, 0xa398b028, 0xd380a500, 0xbc61ba5e, 0x8a3ad9e9}},
    {Codec::kTurbo4,
     {0x3f7e471a, 0x2365de95, 0x42db7549, 0x59acaebe, 0x32a3e5db, 0x75094dec, 0x483edb79}},
    {Codec::kTurbo3,
     {0x68867afd, 0xf81a81f2, 0x3a3eaeac, 0x40d4b887, 0xb7c8ff9d, 0x1ede6735, 0x4ce474c7}},
    {Codec::kTurbo2,
     {0x29dee94d, 0xfa1e54e4, 0x21a704e4, 0xb94c9e1c, 0x470ad8ef, 0xe58fcad4, 0x2b5b825c}},
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
