// cuda::VerifyPages against pages that kernels/cpu wrote, damaged at will.
#include "kernels/cuda/verify/verify.h"

#include <cstring>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/codec.h"
#include "kernels/cuda/verify/expected_header.h"
#include "kernels/format/page_header.h"
#include "tests/unit/kernels/cpu/test_values.h"
#include "tests/unit/kernels/cuda/gpu.h"

namespace turbokv::cuda {
namespace {

using testing::DeviceBuffer;
using ::testing::HasSubstr;
using turbokv::testing::GaussianValues;
using turbokv::testing::KvOrder;
using turbokv::testing::LayoutOf;
using turbokv::testing::TestKv;

std::vector<uint8_t> PageOf(const PageLayout& layout) {
  const PageShape& shape = layout.shape;
  const TestKv kv(ValueType::kBf16, KvOrder::kNhd, kPageTokens, shape.kv_heads, shape.head_dim,
                  GaussianValues(3));
  std::vector<uint8_t> page(layout.page_bytes);
  EXPECT_TRUE(cpu::EncodePage(layout, {1, 2, 3, 4}, kv.view(), absl::MakeSpan(page)).ok());
  return page;
}

bool HeaderIsExpected(const ExpectedHeader& expected, const std::vector<uint8_t>& page) {
  for (int word = 0; word < 32; ++word) {
    uint32_t value;
    std::memcpy(&value, &page[4 * word], 4);
    if (!IsExpected(expected, word, value)) return false;
  }
  return true;
}

// Needs no GPU.
TEST(VerifyArithmeticTest, ExpectsTheHeaderOfAShape) {
  const PageLayout layout = LayoutOf(3, 128, Codec::kTurbo3, Codec::kInt5, true);
  const ExpectedHeader expected = ExpectedHeaderOf(layout);
  const std::vector<uint8_t> page = PageOf(layout);
  EXPECT_TRUE(HeaderIsExpected(expected, page));
  for (size_t byte = 0; byte < kPageHeaderBytes; ++byte) {
    // Checksum, tokens, exponents and identity are not the shape's.
    const bool of_shape = byte < 12 || (byte >= 16 && byte < 20) || (byte >= 22 && byte < 26);
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<uint8_t> flipped = page;
      flipped[byte] ^= static_cast<uint8_t>(1 << bit);
      EXPECT_EQ(HeaderIsExpected(expected, flipped), !of_shape) << "byte " << byte;
    }
  }
}

TEST(VerifyArgumentsTest, NamesTheFieldThatIsWrong) {
  VerifyArguments arguments;
  arguments.pool = {LayoutOf(1, 64, Codec::kTurbo4, Codec::kTurbo4, false).shape,
                    reinterpret_cast<uint8_t*>(4096), 128, 1};
  EXPECT_TRUE(VerifyPages(arguments, nullptr).ok());  // no pages
  arguments.pages = 1;
  EXPECT_THAT(VerifyPages(arguments, nullptr).message(), HasSubstr("page_ids"));
  const int32_t id = 0;
  arguments.page_ids = &id;
  EXPECT_THAT(VerifyPages(arguments, nullptr).message(), HasSubstr("bad_page"));
  arguments.pages = -1;
  EXPECT_THAT(VerifyPages(arguments, nullptr).message(), HasSubstr("-1"));
  arguments.pool.stride_bytes = 64;
  EXPECT_THAT(VerifyPages(arguments, nullptr).message(), HasSubstr("stride_bytes"));
}

class VerifyTest : public testing::GpuTest {
 protected:
  // Pages at any multiple of 128 bytes, in reverse order, with poison between.
  static uint32_t BadPage(const PageLayout& layout,
                          const std::vector<std::vector<uint8_t>>& pages) {
    const size_t step_units = layout.page_bytes / 128 + 3;
    std::vector<uint8_t> memory(128 * step_units * pages.size(), 0xff);
    std::vector<int32_t> ids;
    for (size_t i = 0; i < pages.size(); ++i) {
      ids.push_back(static_cast<int32_t>((pages.size() - 1 - i) * step_units + 1));
      std::memcpy(&memory[128 * size_t(ids[i])], pages[i].data(), layout.page_bytes);
    }
    const DeviceBuffer<uint8_t> device_memory(memory);
    const DeviceBuffer<int32_t> device_ids(ids);
    DeviceBuffer<uint32_t> bad_page(std::vector<uint32_t>{0});
    VerifyArguments arguments;
    arguments.pool = {layout.shape, const_cast<uint8_t*>(device_memory.data()), 128,
                      static_cast<int64_t>(memory.size() / 128)};
    arguments.page_ids = device_ids.data();
    arguments.pages = static_cast<int>(pages.size());
    arguments.bad_page = bad_page.data();
    const absl::Status status = VerifyPages(arguments, nullptr);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return bad_page.Download()[0];
  }
};

TEST_F(VerifyTest, PagesOfEverySizeAreIntact) {
  for (const Codec codec : turbokv::testing::ImplementedCodecs()) {
    for (const int head_dim : {64, 128, 256}) {
      for (const int heads : {1, 2, 3, 8, 13}) {
        const PageLayout layout = LayoutOf(heads, head_dim, codec, codec, true);
        const std::vector<uint8_t> page = PageOf(layout);
        EXPECT_EQ(BadPage(layout, {page, page, page}), 0u)
            << CodecName(codec) << " " << heads << " heads of " << head_dim;
      }
    }
  }
}

TEST_F(VerifyTest, FindsAnyBitThatIsFlipped) {
  const PageLayout layout = LayoutOf(2, 64, Codec::kTurbo3, Codec::kTurbo2, true);
  const std::vector<uint8_t> page = PageOf(layout);
  std::mt19937 rng(5);
  // All at once: page i has one bit flipped, behind an intact one.
  for (size_t begin = 0; begin < page.size(); begin += page.size() / 40) {
    std::vector<uint8_t> flipped = page;
    flipped[begin] ^= static_cast<uint8_t>(1u << (rng() % 8));
    EXPECT_EQ(BadPage(layout, {page, flipped, page}), 2u) << "byte " << begin;
  }
  for (size_t byte = 0; byte < kPageHeaderBytes; ++byte) {
    std::vector<uint8_t> flipped = page;
    flipped[byte] ^= static_cast<uint8_t>(1u << (rng() % 8));
    EXPECT_EQ(BadPage(layout, {page, page, flipped, page}), 3u) << "byte " << byte;
  }
  std::vector<uint8_t> last = page;
  last.back() ^= 0x80;
  EXPECT_EQ(BadPage(layout, {last, last, page}), 2u);  // the largest
}

TEST_F(VerifyTest, APageOfAnotherShapeIsDamaged) {
  const PageLayout layout = LayoutOf(2, 128, Codec::kTurbo3, Codec::kInt5, true);
  const PageLayout swapped = LayoutOf(2, 128, Codec::kInt5, Codec::kTurbo3, true);
  ASSERT_EQ(layout.page_bytes, swapped.page_bytes);
  EXPECT_EQ(BadPage(layout, {PageOf(layout), PageOf(swapped)}), 2u);
  // A larger page_bytes, with a checksum of its own.
  const PageLayout small = LayoutOf(1, 128, Codec::kTurbo3, Codec::kInt5, true);
  const std::vector<uint8_t> page = PageOf(layout);
  EXPECT_EQ(BadPage(small, {page}), 1u);
}

TEST_F(VerifyTest, TakesPagesOfFewerTokens) {
  const PageLayout layout = LayoutOf(2, 128, Codec::kBf16, Codec::kBf16, false);
  std::vector<uint8_t> page = PageOf(layout);
  SealPage(layout, {1, 2, 3, 4}, 77, 0, 0, absl::MakeSpan(page));
  EXPECT_EQ(BadPage(layout, {page}), 0u);
}

}  // namespace
}  // namespace turbokv::cuda
