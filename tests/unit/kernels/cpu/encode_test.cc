// cpu::EncodePage against reference::EncodePage: the same bytes, or the same error.
#include <limits>

#include "gmock/gmock.h"
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

constexpr PageIdentity kIdentity{3, 1, 4096, 0x1122334455667788};

// Which section of the page the first difference is in.
std::string Describe(const PageLayout& layout, size_t offset) {
  if (offset < kPageHeaderBytes) return absl::StrCat("header byte ", offset);
  const size_t in_slice = (offset - kPageHeaderBytes) % layout.slice_bytes;
  const auto inside = [&](const Section& section) {
    return in_slice >= section.offset_bytes && in_slice < section.offset_bytes + section.size_bytes;
  };
  for (const auto& [name, section] :
       {std::pair{"K codes", layout.k_codes}, std::pair{"V codes", layout.v_codes},
        std::pair{"K scales", layout.k_scales}, std::pair{"V scales", layout.v_scales},
        std::pair{"K mean", layout.k_mean}}) {
    if (inside(section)) return absl::StrCat(name, " byte ", in_slice - section.offset_bytes);
  }
  return "padding";
}

void ExpectSamePage(const PageLayout& layout, const KvView& kv, ThreadPool* pool = nullptr) {
  std::vector<uint8_t> expected(layout.page_bytes, 0xcc);
  std::vector<uint8_t> actual(layout.page_bytes, 0xaa);  // poison: every byte must be written
  const absl::Status reference =
      reference::EncodePage(layout, kIdentity, kv, absl::MakeSpan(expected));
  const absl::Status status = cpu::EncodePage(layout, kIdentity, kv, absl::MakeSpan(actual), pool);
  ASSERT_EQ(status, reference);
  if (!status.ok() || expected == actual) return;
  // The checksum differs whenever anything does.
  size_t first = kPageHeaderBytes;
  while (first < actual.size() && actual[first] == expected[first]) ++first;
  if (first == actual.size()) first = 0;
  ADD_FAILURE() << CodecName(layout.shape.k_codec) << "/" << CodecName(layout.shape.v_codec)
                << " head_dim " << layout.shape.head_dim << " tokens " << kv.tokens
                << ": first difference in " << Describe(layout, first);
}

TEST(EncodePageTest, WritesTheReferencesBytesForEveryShape) {
  uint32_t seed = 1;
  for (Codec codec : ImplementedCodecs()) {
    for (int head_dim : kHeadDims) {
      for (ValueType type : {ValueType::kBf16, ValueType::kFp16, ValueType::kFp32}) {
        for (int tokens : {1, 31, 32, 33, 127, 128}) {
          const KvOrder order = seed % 2 ? KvOrder::kNhd : KvOrder::kHnd;
          const TestKv kv(type, order, tokens, 2, head_dim, GaussianValues(++seed));
          ExpectSamePage(LayoutOf(2, head_dim, codec, codec, seed % 3 != 0), kv.view());
        }
      }
    }
  }
}

TEST(EncodePageTest, WritesTheReferencesBytesForAdversarialValues) {
  for (const NamedValues& values : AdversarialValues()) {
    SCOPED_TRACE(values.name);
    for (Codec codec : ImplementedCodecs()) {
      for (int head_dim : {64, 80, 128, 192}) {
        for (ValueType type : {ValueType::kBf16, ValueType::kFp32}) {
          const TestKv kv(type, KvOrder::kNhd, 40, 2, head_dim, values.value);
          ExpectSamePage(LayoutOf(2, head_dim, codec, codec, true), kv.view());
          ExpectSamePage(LayoutOf(2, head_dim, codec, codec, false), kv.view());
        }
      }
    }
  }
}

// Values whose rotation lands on decision thresholds: the inverse rotation of thresholds.
TEST(EncodePageTest, WritesTheReferencesBytesNearThresholds) {
  for (Codec codec :
       {Codec::kTurbo2, Codec::kTurbo3, Codec::kTurbo4, Codec::kInt4, Codec::kInt5, Codec::kInt8}) {
    for (int head_dim : {64, 128}) {
      std::mt19937 rng(17);
      std::uniform_int_distribution<int> pick(-8, 8);
      std::vector<float> vector(head_dim);
      const TestKv kv(ValueType::kFp32, KvOrder::kNhd, 128, 1, head_dim,
                      [&](bool, int, int, int channel) {
                        // Sparse small integers: rotated values repeat and tie often.
                        return channel % 16 == 0 ? static_cast<float>(pick(rng)) : 0.0f;
                      });
      ExpectSamePage(LayoutOf(1, head_dim, codec, codec, false), kv.view());
    }
  }
}

TEST(EncodePageTest, EverySimdTargetWritesTheReferencesBytes) {
  testing::ForEachSimdTarget([] {
    uint32_t seed = 99;
    for (Codec codec : ImplementedCodecs()) {
      for (int head_dim : {64, 112, 192, 256}) {
        const ValueType type = ++seed % 2 ? ValueType::kBf16 : ValueType::kFp16;
        const TestKv kv(type, KvOrder::kNhd, 45, 1, head_dim, GaussianValues(seed));
        ExpectSamePage(LayoutOf(1, head_dim, codec, codec, true), kv.view());
      }
      for (const NamedValues& values : AdversarialValues()) {
        SCOPED_TRACE(values.name);
        const TestKv kv(ValueType::kFp32, KvOrder::kNhd, 33, 1, 128, values.value);
        ExpectSamePage(LayoutOf(1, 128, codec, codec, true), kv.view());
      }
    }
  });
}

TEST(EncodePageTest, ThreadsDoNotChangeTheBytes) {
  ThreadPool pool(3);
  const TestKv kv(ValueType::kBf16, KvOrder::kNhd, 128, 7, 128, GaussianValues(5));
  ExpectSamePage(LayoutOf(7, 128, Codec::kInt5, Codec::kTurbo3, true), kv.view(), &pool);
}

TEST(EncodePageTest, NamesTheFirstValueThatIsNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const PageLayout layout = LayoutOf(3, 96, Codec::kTurbo3, Codec::kBf16, true);
  for (ValueType type : {ValueType::kBf16, ValueType::kFp16, ValueType::kFp32}) {
    for (float bad : {infinity, -infinity, nan}) {
      TestKv kv(type, KvOrder::kHnd, 77, 3, 96, GaussianValues(8));
      kv.SetV(70, 2, 95, bad);
      ExpectSamePage(layout, kv.view());
      kv.SetV(3, 1, 0, bad);
      ExpectSamePage(layout, kv.view());
      kv.SetK(76, 0, 40, bad);
      ExpectSamePage(layout, kv.view());
    }
  }
  TestKv kv(ValueType::kBf16, KvOrder::kNhd, 4, 3, 96, GaussianValues(8));
  kv.SetK(2, 1, 9, nan);
  std::vector<uint8_t> page(layout.page_bytes);
  const absl::Status status = cpu::EncodePage(layout, kIdentity, kv.view(), absl::MakeSpan(page));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), ::testing::HasSubstr("K of token 2, head 1, channel 9 is nan"));
}

TEST(EncodePageTest, RefusesBadArguments) {
  const PageLayout layout = LayoutOf(1, 64, Codec::kInt5, Codec::kInt5, true);
  std::vector<uint8_t> page(layout.page_bytes);
  const TestKv kv(ValueType::kBf16, KvOrder::kNhd, 128, 1, 64, GaussianValues(1));
  KvView view = kv.view();
  view.tokens = 0;
  ExpectSamePage(layout, view);
  view.tokens = 129;
  ExpectSamePage(layout, view);
  view = kv.view();
  view.v = nullptr;
  ExpectSamePage(layout, view);
  EXPECT_EQ(cpu::EncodePage(layout, kIdentity, kv.view(), absl::MakeSpan(page).subspan(1)).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace turbokv
