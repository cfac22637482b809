// The blocks of cuda_in_place_test.cc are what its two processes take them for; needs no GPU.
#include "tests/unit/client/cuda/in_place_blocks.h"

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/format/page_header.h"

namespace turbokv::testing {
namespace {

TEST(InPlaceBlocksTest, AreSealedPagesOfTheSpec) {
  const auto spec = InPlaceSpec();
  const BlockMaker maker(spec);
  const std::vector<uint8_t> block = maker.Block(5);
  ASSERT_EQ(block.size(), spec->block_bytes());
  absl::Span<const uint8_t> rest = block;
  for (int layer = 0; layer < spec->spec.layers; ++layer) {
    const auto page = ParsePage(rest);
    ASSERT_TRUE(page.ok()) << page.status();
    EXPECT_EQ(page->layout.shape, spec->layer_layouts[layer].shape);
    EXPECT_TRUE(VerifyChecksum(*page).ok());
    EXPECT_EQ(page->header.layer, static_cast<uint32_t>(layer));
    EXPECT_EQ(page->header.first_token, 5u * kPageTokens);
    EXPECT_EQ(page->header.spec_id, spec->spec_id());
    EXPECT_EQ(maker.Page(layer, 5), std::vector<uint8_t>(page->bytes.begin(), page->bytes.end()));
    rest.remove_prefix(page->layout.page_bytes);
  }
  EXPECT_NE(maker.Page(0, 0), maker.Page(0, 1));
}

}  // namespace
}  // namespace turbokv::testing
