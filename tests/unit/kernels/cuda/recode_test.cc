// cuda::RecodePages against the reference: the same bytes.
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/reference/codec.h"
#include "tests/unit/kernels/cuda/dequantize_harness.h"
#include "tests/unit/kernels/cuda/encode_harness.h"

namespace turbokv::cuda {
namespace {

using testing::DeviceBuffer;
using testing::PagesOnDevice;
using testing::ReferencePages;
using turbokv::testing::AdversarialValues;
using turbokv::testing::GaussianValues;
using turbokv::testing::ImplementedCodecs;
using turbokv::testing::LayoutOf;
using turbokv::testing::NamedValues;

std::vector<uint8_t> ReferenceRecoded(const PageLayout& to, absl::Span<const uint8_t> bytes) {
  const absl::StatusOr<PageView> page = ParsePage(bytes);
  EXPECT_TRUE(page.ok()) << page.status();
  const int heads = to.shape.kv_heads;
  const int dim = to.shape.head_dim;
  std::vector<float> k(size_t{kPageTokens} * heads * dim);
  std::vector<float> v(k.size());
  reference::DecodePage(*page, {k.data(), v.data(), ptrdiff_t{heads} * dim, dim});
  const PageIdentity identity{page->header.layer, page->header.generation + 1,
                              page->header.first_token, page->header.spec_id};
  const KvView kv = NhdView(ValueType::kFp32, k.data(), v.data(), kPageTokens, heads, dim);
  std::vector<uint8_t> recoded(to.page_bytes);
  const absl::Status status = reference::EncodePage(to, identity, kv, absl::MakeSpan(recoded));
  EXPECT_TRUE(status.ok()) << status;
  return recoded;
}

// Recodes into pages of odd numbers of a poisoned pool; even ones must stay as they are.
void ExpectRecoded(const PagesOnDevice& from, const PageLayout& to) {
  const int pages = static_cast<int>(from.pages().size());
  const auto stride = static_cast<int64_t>(to.page_bytes) + 128;
  DeviceBuffer<uint8_t> memory(stride * (2 * pages + 1));
  std::vector<int32_t> ids;
  for (int i = 0; i < pages; ++i) ids.push_back(2 * (pages - 1 - i) + 1);
  const DeviceBuffer<int32_t> to_page_ids(ids);
  DeviceBuffer<uint8_t> workspace(RecodeWorkspaceBytes(pages, to.shape));
  RecodeArguments arguments;
  arguments.from = from.pool();
  arguments.to = {to.shape, memory.data(), stride, 2 * pages + 1};
  arguments.from_page_ids = from.page_ids();
  arguments.to_page_ids = to_page_ids.data();
  arguments.pages = pages;
  arguments.workspace = workspace.data();
  const absl::Status status = RecodePages(arguments, nullptr);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);

  std::vector<uint8_t> bytes = memory.Download();
  for (int i = 0; i < pages; ++i) {
    const absl::Span<uint8_t> page = absl::MakeSpan(bytes).subspan(ids[i] * stride, to.page_bytes);
    ASSERT_EQ(testing::Difference(to, page, ReferenceRecoded(to, from.pages()[i])), "")
        << "page " << i;
    std::fill(page.begin(), page.end(), 0xff);
  }
  for (size_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], 0xff) << "byte " << i;
}

class RecodeTest : public testing::GpuTest {};

TEST_F(RecodeTest, WritesTheReferencesBytesForEveryPairOfCodecs) {
  uint32_t seed = 0;
  for (Codec from : ImplementedCodecs()) {
    const PageLayout from_layout = LayoutOf(2, 128, from, from, ++seed % 2);
    const PagesOnDevice pages(
        from_layout, ReferencePages(from_layout, ValueType::kBf16, GaussianValues(seed), 2));
    for (Codec to : ImplementedCodecs()) {
      SCOPED_TRACE(absl::StrCat(CodecName(from), " to ", CodecName(to)));
      ExpectRecoded(pages, LayoutOf(2, 128, to, to, ++seed % 3 != 0));
    }
  }
}

TEST_F(RecodeTest, WritesTheReferencesBytesForOtherHeadDims) {
  const Codec codecs[] = {Codec::kBf16, Codec::kFp8E4m3, Codec::kQ4_0, Codec::kInt5,
                          Codec::kTurbo3};
  for (int head_dim : {64, 256}) {
    for (Codec from : codecs) {
      const PageLayout layout = LayoutOf(1, head_dim, from, Codec::kTurbo4, true);
      const PagesOnDevice pages(layout,
                                ReferencePages(layout, ValueType::kBf16, GaussianValues(9), 1));
      for (Codec to : codecs) {
        SCOPED_TRACE(
            absl::StrCat("head_dim ", head_dim, ", ", CodecName(from), " to ", CodecName(to)));
        ExpectRecoded(pages, LayoutOf(1, head_dim, to, Codec::kInt4, true));
      }
    }
  }
}

// Exponents other than 0, zeros of either sign, denormals.
TEST_F(RecodeTest, WritesTheReferencesBytesForAdversarialValues) {
  for (const NamedValues& values : AdversarialValues()) {
    for (Codec from : ImplementedCodecs()) {
      SCOPED_TRACE(absl::StrCat(values.name, ", ", CodecName(from)));
      const PageLayout layout = LayoutOf(1, 128, from, from, true);
      const PagesOnDevice pages(layout, ReferencePages(layout, ValueType::kFp32, values.value, 1));
      ExpectRecoded(pages, LayoutOf(1, 128, Codec::kBf16, Codec::kFp16, false));
      ExpectRecoded(pages, LayoutOf(1, 128, Codec::kTurbo3, Codec::kInt6, true));
    }
  }
}

}  // namespace
}  // namespace turbokv::cuda
