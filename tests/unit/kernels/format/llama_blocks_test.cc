#include "kernels/format/llama_blocks.h"

#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/kernels/reference/test_values.h"

namespace turbokv {
namespace {

using testing::Encode;
using testing::Gaussian;
using ::testing::HasSubstr;
using testing::LayoutOf;
using testing::Parse;
using testing::ShapeFor;
using testing::TestKv;

constexpr Codec kTurboCodecs[] = {Codec::kTurbo2, Codec::kTurbo3, Codec::kTurbo4};

// Any bytes are valid blocks, so random ones must survive the way into a page and back.
TEST(LlamaBlocksTest, BlocksSurviveAPage) {
  std::mt19937 random(31);
  for (Codec codec : kTurboCodecs) {
    for (int head_dim : {128, 256}) {
      for (int tokens : {1, 77, 128}) {
        const PageLayout layout = LayoutOf({1, head_dim, codec, codec, false});
        std::vector<uint8_t> blocks(*LlamaBlockBytes(codec) * tokens * (head_dim / 128));
        for (uint8_t& byte : blocks) byte = static_cast<uint8_t>(random());
        for (size_t norm = 1; norm < blocks.size(); norm += *LlamaBlockBytes(codec)) {
          blocks[norm] &= 0x3f;  // finite
        }
        for (PageTensor tensor : {PageTensor::kK, PageTensor::kV}) {
          std::vector<uint8_t> page(layout.page_bytes);
          ASSERT_TRUE(LlamaBlocksToSlice(layout, tensor, tokens, blocks,
                                         absl::MakeSpan(page).subspan(layout.SliceOffset(0)))
                          .ok());
          SealPage(layout, {}, tokens, 0, 0, absl::MakeSpan(page));
          std::vector<uint8_t> back(blocks.size(), 0xab);
          ASSERT_TRUE(PageToLlamaBlocks(Parse(page), tensor, 0, absl::MakeSpan(back)).ok());
          EXPECT_EQ(back, blocks) << CodecName(codec) << " head_dim " << head_dim;
        }
      }
    }
  }
}

TEST(LlamaBlocksTest, PagesSurviveBlocks) {
  for (Codec codec : kTurboCodecs) {
    const TestKv kv(ValueType::kFp32, 99, 2, 256, Gaussian(5));
    const std::vector<uint8_t> page = Encode(ShapeFor(codec, codec, kv, false), kv);
    const PageView view = Parse(page);
    std::vector<uint8_t> rebuilt(page.size());
    for (int head = 0; head < 2; ++head) {
      for (PageTensor tensor : {PageTensor::kK, PageTensor::kV}) {
        std::vector<uint8_t> blocks(*LlamaBlockBytes(codec) * 99 * 2);
        ASSERT_TRUE(PageToLlamaBlocks(view, tensor, head, absl::MakeSpan(blocks)).ok());
        ASSERT_TRUE(LlamaBlocksToSlice(view.layout, tensor, 99, blocks,
                                       absl::MakeSpan(rebuilt).subspan(
                                           view.layout.SliceOffset(head), view.layout.slice_bytes))
                        .ok());
      }
    }
    SealPage(view.layout, {}, 99, 0, 0, absl::MakeSpan(rebuilt));
    EXPECT_EQ(rebuilt, page);
  }
}

TEST(LlamaBlocksTest, WhatBlocksCannotHoldIsRefused) {
  const auto convert = [](Codec codec, int head_dim, bool k_mean, double sigma, size_t bytes) {
    const TestKv kv(ValueType::kFp32, 1, 1, head_dim, Gaussian(5, sigma));
    const std::vector<uint8_t> page = Encode(ShapeFor(codec, codec, kv, k_mean), kv);
    std::vector<uint8_t> blocks(bytes);
    return PageToLlamaBlocks(Parse(page), PageTensor::kK, 0, absl::MakeSpan(blocks));
  };
  EXPECT_TRUE(convert(Codec::kTurbo3, 128, false, 1, 50).ok());
  EXPECT_THAT(convert(Codec::kInt4, 128, false, 1, 50).message(), HasSubstr("int4"));
  EXPECT_THAT(convert(Codec::kTurbo3, 192, false, 1, 50).message(), HasSubstr("head_dim 192"));
  EXPECT_THAT(convert(Codec::kTurbo3, 128, true, 1, 50).message(), HasSubstr("kmean=off"));
  EXPECT_THAT(convert(Codec::kTurbo3, 128, false, 1, 49).message(), HasSubstr("49 bytes"));
  EXPECT_THAT(convert(Codec::kTurbo3, 128, false, 1e20, 50).message(), HasSubstr("page exponent"));
  EXPECT_THAT(convert(Codec::kTurbo3, 128, false, 1e-20, 50).message(), HasSubstr("page exponent"));
}

TEST(LlamaBlocksTest, HeadsOutOfRangeAreRefused) {
  const TestKv kv(ValueType::kFp32, 1, 1, 128, Gaussian(5));
  const std::vector<uint8_t> page = Encode(ShapeFor(Codec::kTurbo2, Codec::kTurbo2, kv, false), kv);
  std::vector<uint8_t> blocks(34);
  for (int head : {-1, 1}) {
    EXPECT_THAT(
        PageToLlamaBlocks(Parse(page), PageTensor::kV, head, absl::MakeSpan(blocks)).message(),
        HasSubstr("kv_head"));
  }
}

}  // namespace
}  // namespace turbokv
