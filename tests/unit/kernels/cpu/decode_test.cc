// cpu::DecodePage against reference::DecodePage.
#include <cmath>

#include "gtest/gtest.h"
#include "kernels/cpu/codec.h"
#include "kernels/reference/codec.h"
#include "tests/unit/kernels/cpu/for_each_simd_target.h"
#include "tests/unit/kernels/cpu/test_values.h"

namespace turbokv {
namespace {

using testing::AdversarialValues;
using testing::GaussianValues;
using testing::ImplementedCodecs;
using testing::KvOrder;
using testing::LayoutOf;
using testing::NamedValues;
using testing::TestKv;

constexpr float kPoison = -987.0f;

// Every value within float rounding of the largest: those of a vector may cancel with the K mean.
void ExpectSameValues(const std::vector<float>& actual, const std::vector<float>& expected,
                      int head_dim) {
  ASSERT_EQ(actual.size(), expected.size());
  float largest = 0;
  for (float value : expected) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], 1e-6 * largest + 1e-44)
        << "vector " << i / head_dim << " channel " << i % head_dim;
  }
}

void ExpectSameDecoding(const PageLayout& layout, const KvView& kv, KvOrder order,
                        ThreadPool* pool = nullptr) {
  SCOPED_TRACE(absl::StrCat(CodecName(layout.shape.k_codec), "/", CodecName(layout.shape.v_codec),
                            " head_dim ", layout.shape.head_dim, " tokens ", kv.tokens));
  std::vector<uint8_t> bytes(layout.page_bytes);
  ASSERT_TRUE(reference::EncodePage(layout, {}, kv, absl::MakeSpan(bytes)).ok());
  const absl::StatusOr<PageView> page = ParsePage(bytes);
  ASSERT_TRUE(page.ok());
  const int heads = layout.shape.kv_heads, dim = layout.shape.head_dim;
  const size_t count = static_cast<size_t>(kv.tokens) * heads * dim;
  KvOutput strides;
  strides.token_stride = order == KvOrder::kNhd ? heads * dim : dim;
  strides.head_stride = order == KvOrder::kNhd ? dim : kv.tokens * dim;
  std::vector<float> k[2], v[2];
  for (int i = 0; i < 2; ++i) {
    k[i].assign(count, kPoison);
    v[i].assign(count, kPoison);
    KvOutput output = strides;
    output.k = k[i].data();
    output.v = v[i].data();
    if (i == 0) {
      cpu::DecodePage(*page, output, pool);
    } else {
      reference::DecodePage(*page, output);
    }
  }
  ExpectSameValues(k[0], k[1], dim);
  ExpectSameValues(v[0], v[1], dim);
}

TEST(DecodePageTest, MatchesTheReferenceForEveryShape) {
  uint32_t seed = 1;
  for (Codec codec : ImplementedCodecs()) {
    for (int head_dim : kHeadDims) {
      for (int tokens : {1, 33, 128}) {
        const KvOrder order = ++seed % 2 ? KvOrder::kNhd : KvOrder::kHnd;
        const TestKv kv(ValueType::kFp32, KvOrder::kNhd, tokens, 2, head_dim, GaussianValues(seed));
        ExpectSameDecoding(LayoutOf(2, head_dim, codec, codec, seed % 3 != 0), kv.view(), order);
      }
    }
  }
}

TEST(DecodePageTest, MatchesTheReferenceForAdversarialValues) {
  for (const NamedValues& values : AdversarialValues()) {
    SCOPED_TRACE(values.name);
    for (Codec codec : ImplementedCodecs()) {
      const TestKv kv(ValueType::kFp32, KvOrder::kNhd, 40, 1, 128, values.value);
      ExpectSameDecoding(LayoutOf(1, 128, codec, codec, true), kv.view(), KvOrder::kNhd);
    }
  }
}

TEST(DecodePageTest, EverySimdTargetMatchesTheReference) {
  testing::ForEachSimdTarget([] {
    ThreadPool pool(2);
    for (Codec codec : ImplementedCodecs()) {
      const TestKv kv(ValueType::kBf16, KvOrder::kHnd, 97, 3, 192, GaussianValues(4));
      ExpectSameDecoding(LayoutOf(3, 192, codec, codec, true), kv.view(), KvOrder::kHnd, &pool);
    }
  });
}

TEST(DecodePageTest, LeavesWhatIsNotWantedAlone) {
  const PageLayout layout = LayoutOf(1, 64, Codec::kInt5, Codec::kInt5, true);
  const TestKv kv(ValueType::kBf16, KvOrder::kNhd, 2, 1, 64, GaussianValues(1));
  std::vector<uint8_t> bytes(layout.page_bytes);
  ASSERT_TRUE(cpu::EncodePage(layout, {}, kv.view(), absl::MakeSpan(bytes)).ok());
  std::vector<float> v(3 * 64, kPoison);
  cpu::DecodePage(*ParsePage(bytes), {nullptr, v.data(), 64, 64});
  EXPECT_NE(v[127], kPoison);
  for (int c = 128; c < 192; ++c) EXPECT_EQ(v[c], kPoison);
}

}  // namespace
}  // namespace turbokv
