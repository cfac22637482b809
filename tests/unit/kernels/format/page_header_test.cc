#include "kernels/format/page_header.h"

#include <cstddef>
#include <cstring>
#include <functional>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/format/crc32c.h"

namespace turbokv {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

std::vector<uint8_t> SealedPage() {
  const PageLayout layout = *PageLayout::For({2, 64, Codec::kInt5, Codec::kTurbo3, true});
  std::vector<uint8_t> page(layout.page_bytes);
  for (size_t i = kPageHeaderBytes; i < page.size(); ++i) page[i] = static_cast<uint8_t>(i * 7);
  const PageIdentity identity{3, 1, 0x1122334455667788, 0x99aabbccddeeff00};
  SealPage(layout, identity, 100, -20, 17, absl::MakeSpan(page));
  return page;
}

TEST(PageHeaderTest, BytesAreFrozen) {
  const std::vector<uint8_t> page = SealedPage();
  std::vector<uint8_t> expected = {
      'T',  'K',  'V',  'P',                           // magic
      1,    0,    128,  0,                             // format_version, header_bytes
      0x80, 0x47, 0,    0,                             // page_bytes 18304
      0,    0,    0,    0,                             // checksum, below
      8,    11,   1,    0,                             // k_codec, v_codec, flags
      100,  0,    2,    0,                             // tokens, kv_heads
      64,   0,    0xec, 0xff, 17,   0,    0,    0,     // head_dim, exponents, reserved0
      3,    0,    0,    0,    1,    0,    0,    0,     // layer, generation
      0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,  // first_token
      0x00, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99,  // spec_id
  };
  expected.resize(kPageHeaderBytes);
  std::vector<uint8_t> unsealed = page;
  std::memset(unsealed.data() + 12, 0, 4);
  const uint32_t checksum = Crc32c(unsealed);
  std::memcpy(expected.data() + 12, &checksum, sizeof(checksum));
  EXPECT_THAT(absl::MakeSpan(page).subspan(0, kPageHeaderBytes), ElementsAreArray(expected));
}

TEST(PageHeaderTest, ParsesWhatWasSealed) {
  std::vector<uint8_t> page = SealedPage();
  page.resize(page.size() + 100);  // a longer buffer is fine
  const absl::StatusOr<PageView> view = ParsePage(page);
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_TRUE(VerifyChecksum(*view).ok());
  EXPECT_EQ(view->bytes.size(), page.size() - 100);
  EXPECT_EQ(view->layout.shape, (PageShape{2, 64, Codec::kInt5, Codec::kTurbo3, true}));
  EXPECT_EQ(view->header.tokens, 100);
  EXPECT_EQ(view->header.k_exponent, -20);
  EXPECT_EQ(view->header.v_exponent, 17);
  EXPECT_EQ(view->header.first_token, 0x1122334455667788u);
  EXPECT_EQ(view->Slice(1), page.data() + 128 + view->layout.slice_bytes);
}

TEST(PageHeaderTest, EveryFlippedBitIsNoticed) {
  const std::vector<uint8_t> page = SealedPage();
  for (size_t bit = 0; bit < page.size() * 8; bit += bit < 1024 ? 1 : 997) {
    std::vector<uint8_t> damaged = page;
    damaged[bit / 8] ^= 1 << (bit % 8);
    const absl::StatusOr<PageView> view = ParsePage(damaged);
    if (!view.ok()) continue;
    EXPECT_EQ(VerifyChecksum(*view).code(), absl::StatusCode::kDataLoss) << "bit " << bit;
  }
}

TEST(PageHeaderTest, CutPagesAreDataLoss) {
  const std::vector<uint8_t> page = SealedPage();
  for (size_t size : {size_t{0}, size_t{1}, size_t{127}, size_t{128}, page.size() - 1}) {
    const std::vector<uint8_t> cut(page.begin(), page.begin() + size);
    EXPECT_EQ(ParsePage(cut).status().code(), absl::StatusCode::kDataLoss) << size;
  }
}

struct BadField {
  const char* name;
  std::function<void(PageHeader&)> change;
  absl::StatusCode code;
  const char* message;
};

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kUnimplemented = absl::StatusCode::kUnimplemented;

class BadFieldTest : public ::testing::TestWithParam<BadField> {};

TEST_P(BadFieldTest, IsRefusedByName) {
  std::vector<uint8_t> page = SealedPage();
  PageHeader header;
  std::memcpy(&header, page.data(), sizeof(header));
  GetParam().change(header);
  std::memcpy(page.data(), &header, sizeof(header));
  const absl::Status status = ParsePage(page).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(status.message(), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    PageHeaderTest, BadFieldTest,
    ::testing::ValuesIn(std::vector<BadField>{
        {"Magic", [](PageHeader& h) { h.magic ^= 1; }, kInvalid, "magic"},
        {"VersionZero", [](PageHeader& h) { h.format_version = 0; }, kInvalid, "format_version 0"},
        {"VersionTwo", [](PageHeader& h) { h.format_version = 2; }, kUnimplemented,
         "format_version 2"},
        {"HeaderBytes", [](PageHeader& h) { h.header_bytes = 256; }, kInvalid, "header_bytes 256"},
        {"PageBytesSmall", [](PageHeader& h) { h.page_bytes -= 128; }, kInvalid, "page_bytes"},
        {"PageBytesHuge", [](PageHeader& h) { h.page_bytes = 0xffffffff; }, kInvalid, "page_bytes"},
        {"KCodecZero", [](PageHeader& h) { h.k_codec = 0; }, kInvalid, "k_codec"},
        {"KCodecNewer", [](PageHeader& h) { h.k_codec = 200; }, kUnimplemented, "k_codec 200"},
        {"VCodecNewer", [](PageHeader& h) { h.v_codec = 19; }, kUnimplemented, "v_codec 19"},
        {"VCodecNamedOnly", [](PageHeader& h) { h.v_codec = 13; }, kUnimplemented, "turbo3_tcq"},
        {"FlagUnknown", [](PageHeader& h) { h.flags |= 1 << 9; }, kUnimplemented, "flags"},
        {"FlagBeforeRope", [](PageHeader& h) { h.flags |= kPageKMeanBeforeRope; }, kUnimplemented,
         "before RoPE"},
        {"FlagWidths", [](PageHeader& h) { h.flags |= kPageHasWidths; }, kUnimplemented, "widths"},
        {"TokensZero", [](PageHeader& h) { h.tokens = 0; }, kInvalid, "tokens 0"},
        {"TokensMany", [](PageHeader& h) { h.tokens = 129; }, kInvalid, "tokens 129"},
        {"HeadsZero", [](PageHeader& h) { h.kv_heads = 0; }, kInvalid, "kv_heads 0"},
        {"HeadsMany", [](PageHeader& h) { h.kv_heads = 1025; }, kInvalid, "kv_heads 1025"},
        {"HeadDim", [](PageHeader& h) { h.head_dim = 65; }, kInvalid, "head_dim 65"},
        {"KExponent", [](PageHeader& h) { h.k_exponent = 161; }, kInvalid, "k_exponent 161"},
        {"VExponent", [](PageHeader& h) { h.v_exponent = -32768; }, kInvalid, "v_exponent -32768"},
        {"Reserved0", [](PageHeader& h) { h.reserved0 = 1; }, kUnimplemented, "reserved0"},
        {"KBasis", [](PageHeader& h) { h.k_basis_crc = 1; }, kUnimplemented, "k_basis_crc"},
        {"VBasis", [](PageHeader& h) { h.v_basis_crc = 1; }, kUnimplemented, "v_basis_crc"},
        {"KCodebook", [](PageHeader& h) { h.k_codebook_crc = 1; }, kUnimplemented,
         "k_codebook_crc"},
        {"VCodebook", [](PageHeader& h) { h.v_codebook_crc = 1; }, kUnimplemented,
         "v_codebook_crc"},
        {"WidthsOffset", [](PageHeader& h) { h.widths_offset_bytes = 1; }, kUnimplemented,
         "widths"},
        {"WidthsBytes", [](PageHeader& h) { h.widths_bytes = 1; }, kUnimplemented, "widths"},
        {"Reserved1", [](PageHeader& h) { h.reserved1[47] = 1; }, kUnimplemented, "reserved1"},
        {"MeanOfBf16",
         [](PageHeader& h) {
           h.k_codec = 1;
           h.k_exponent = 0;
         },
         kInvalid, "K mean"},
        {"ExponentOfFp8", [](PageHeader& h) { h.v_codec = 3; }, kInvalid, "v_exponent 17"},
    }),
    [](const ::testing::TestParamInfo<BadField>& row) { return row.param.name; });

}  // namespace
}  // namespace turbokv
