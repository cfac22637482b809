#include "kernels/format/page_layout.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace turbokv {
namespace {

using ::testing::HasSubstr;

PageLayout LayoutOf(Codec k, Codec v, int head_dim, bool k_mean, int kv_heads = 1) {
  const absl::StatusOr<PageLayout> layout = PageLayout::For({kv_heads, head_dim, k, v, k_mean});
  EXPECT_TRUE(layout.ok()) << layout.status();
  return *layout;
}

TEST(PageLayoutTest, Turbo3SliceIsAsSpecified) {
  const PageLayout layout = LayoutOf(Codec::kTurbo3, Codec::kTurbo3, 128, true, 2);
  EXPECT_EQ(layout.k_codes.offset_bytes, 0u);
  EXPECT_EQ(layout.k_codes.size_bytes, 6144u);
  EXPECT_EQ(layout.k_scales.offset_bytes, 6144u);
  EXPECT_EQ(layout.k_scales.size_bytes, 256u);
  EXPECT_EQ(layout.k_mean.offset_bytes, 6400u);
  EXPECT_EQ(layout.k_mean.size_bytes, 256u);
  EXPECT_EQ(layout.v_codes.offset_bytes, 6656u);
  EXPECT_EQ(layout.v_scales.offset_bytes, 12800u);
  EXPECT_EQ(layout.slice_bytes, 13056u);
  EXPECT_EQ(layout.page_bytes, 128 + 2 * 13056u);
  EXPECT_EQ(layout.SliceOffset(1), 128 + 13056u);
}

// Slice bytes without K mean, frozen. Every codec for K and V alike.
TEST(PageLayoutTest, SliceSizesAreFrozen) {
  struct Row {
    Codec codec;
    size_t bytes[kHeadDims.size()];  // head_dim 64, 80, 96, 112, 128, 192, 256
  };
  const Row rows[] = {
      {Codec::kBf16, {32768, 49152, 49152, 65536, 65536, 98304, 131072}},
      {Codec::kFp16, {32768, 49152, 49152, 65536, 65536, 98304, 131072}},
      {Codec::kFp8E4m3, {16640, 24832, 24832, 33024, 33024, 49408, 65792}},
      {Codec::kQ8_0, {17408, 26112, 26112, 34816, 34816, 52224, 69632}},
      {Codec::kQ4_0, {9216, 13824, 13824, 18432, 18432, 27648, 36864}},
      {Codec::kInt8, {17408, 33792, 33792, 33792, 33792, 51200, 67584}},
      {Codec::kInt6, {13312, 25600, 25600, 25600, 25600, 38912, 51200}},
      {Codec::kInt5, {11264, 21504, 21504, 21504, 21504, 32768, 43008}},
      {Codec::kInt4, {9216, 17408, 17408, 17408, 17408, 26624, 34816}},
      {Codec::kTurbo4, {8704, 16896, 16896, 16896, 16896, 25600, 33792}},
      {Codec::kTurbo3, {6656, 12800, 12800, 12800, 12800, 19456, 25600}},
      {Codec::kTurbo2, {4608, 8704, 8704, 8704, 8704, 13312, 17408}},
  };
  for (const Row& row : rows) {
    for (size_t i = 0; i < kHeadDims.size(); ++i) {
      EXPECT_EQ(LayoutOf(row.codec, row.codec, kHeadDims[i], false).slice_bytes, row.bytes[i])
          << CodecName(row.codec) << " head_dim " << kHeadDims[i];
    }
  }
}

TEST(PageLayoutTest, SectionsAreAlignedAndDoNotOverlap) {
  for (const CodecTraits& k : AllCodecs()) {
    for (const CodecTraits& v : AllCodecs()) {
      for (int head_dim : kHeadDims) {
        if (!k.implemented || !v.implemented) continue;
        const bool k_mean = k.scale_kind != ScaleKind::kNone;
        const PageLayout layout = LayoutOf(k.codec, v.codec, head_dim, k_mean, 3);
        size_t end = 0;
        for (const Section& section :
             {layout.k_codes, layout.k_scales, layout.k_mean, layout.v_codes, layout.v_scales}) {
          EXPECT_EQ(section.offset_bytes % kSectionAlignmentBytes, 0u);
          EXPECT_GE(section.offset_bytes, end);
          EXPECT_LT(section.offset_bytes - end, kSectionAlignmentBytes);
          end = section.offset_bytes + section.size_bytes;
        }
        EXPECT_LE(end, layout.slice_bytes);
        EXPECT_EQ(layout.page_bytes, layout.SliceOffset(3));
      }
    }
  }
}

TEST(PageLayoutTest, BitsPerValue) {
  EXPECT_NEAR(BitsPerValue(LayoutOf(Codec::kTurbo3, Codec::kTurbo3, 128, false, 8)), 3.125, 4e-3);
  EXPECT_NEAR(BitsPerValue(LayoutOf(Codec::kTurbo4, Codec::kTurbo4, 128, false, 8)), 4.125, 4e-3);
  EXPECT_NEAR(BitsPerValue(LayoutOf(Codec::kInt5, Codec::kInt5, 128, true, 8)), 5.3125, 4e-3);
}

TEST(PageLayoutTest, BadShapesAreRefusedByName) {
  const auto status_of = [](const PageShape& shape) { return PageLayout::For(shape).status(); };
  const PageShape good{1, 128, Codec::kInt5, Codec::kInt5, true};
  PageShape shape = good;
  shape.head_dim = 100;
  EXPECT_THAT(status_of(shape).message(), HasSubstr("head_dim 100"));
  for (int kv_heads : {0, -1, 1025}) {
    shape = good;
    shape.kv_heads = kv_heads;
    EXPECT_EQ(status_of(shape).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status_of(shape).message(), HasSubstr("kv_heads"));
  }
  shape = good;
  shape.k_codec = Codec::kBf16;
  EXPECT_EQ(status_of(shape).code(), absl::StatusCode::kInvalidArgument);
  shape = good;
  shape.v_codec = Codec::kTurbo3Tcq;
  EXPECT_EQ(status_of(shape).code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(status_of(shape).message(), HasSubstr("turbo3_tcq"));
}

}  // namespace
}  // namespace turbokv
