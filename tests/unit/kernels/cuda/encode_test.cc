// cuda::EncodePages against reference::EncodePage: the same bytes.
#include "kernels/cuda/encode/encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/format/rotation.h"
#include "kernels/reference/rotation.h"
#include "tests/unit/kernels/cpu/test_values.h"
#include "tests/unit/kernels/cuda/encode_harness.h"

namespace turbokv::cuda {
namespace {

using testing::DeviceBuffer;
using testing::DeviceKv;
using testing::Difference;
using testing::EncodeRun;
using testing::ExpectReferencePages;
using testing::ReferencePage;
using turbokv::testing::AdversarialValues;
using turbokv::testing::GaussianValues;
using turbokv::testing::ImplementedCodecs;
using turbokv::testing::KvOrder;
using turbokv::testing::LayoutOf;
using turbokv::testing::NamedValues;
using turbokv::testing::TestKv;

constexpr ValueType kTypes[] = {ValueType::kBf16, ValueType::kFp16, ValueType::kFp32};
constexpr int kHeadDims[] = {64, 128, 256};

class EncodeTest : public testing::GpuTest {};

TEST_F(EncodeTest, WritesTheReferencesBytesForEveryShape) {
  uint32_t seed = 1;
  for (Codec codec : ImplementedCodecs()) {
    for (int head_dim : kHeadDims) {
      for (ValueType type : kTypes) {
        for (bool k_mean : {false, true}) {
          const KvOrder order = ++seed % 2 ? KvOrder::kNhd : KvOrder::kHnd;
          const TestKv kv(type, order, 3 * kPageTokens, 2, head_dim, GaussianValues(seed));
          ExpectReferencePages(LayoutOf(2, head_dim, codec, codec, k_mean), kv.view());
        }
      }
    }
  }
}

TEST_F(EncodeTest, WritesTheReferencesBytesForCodecsThatDiffer) {
  const TestKv kv(ValueType::kBf16, KvOrder::kNhd, kPageTokens, 3, 128, GaussianValues(5));
  for (Codec k : ImplementedCodecs()) {
    for (Codec v : ImplementedCodecs()) {
      ExpectReferencePages(LayoutOf(3, 128, k, v, true), kv.view());
    }
  }
}

TEST_F(EncodeTest, WritesTheReferencesBytesForManyPages) {
  for (Codec codec : {Codec::kTurbo3, Codec::kTurbo4, Codec::kInt5, Codec::kInt8}) {
    for (ValueType type : {ValueType::kBf16, ValueType::kFp16}) {
      const TestKv kv(type, KvOrder::kNhd, 20 * kPageTokens, 8, 128, GaussianValues(11));
      ExpectReferencePages(LayoutOf(8, 128, codec, codec, true), kv.view());
    }
  }
}

TEST_F(EncodeTest, WritesTheReferencesBytesForAdversarialValues) {
  for (const NamedValues& values : AdversarialValues()) {
    SCOPED_TRACE(values.name);
    for (int head_dim : kHeadDims) {
      for (ValueType type : kTypes) {
        const TestKv kv(
            type, KvOrder::kNhd, kPageTokens, 2, head_dim, [&](bool v, int t, int h, int c) {
              const float value = values.value(v, t, h, c);
              // What fp16 would make an infinity is another test's.
              return type == ValueType::kFp16 ? std::clamp(value, -65504.0f, 65504.0f) : value;
            });
        for (Codec codec : ImplementedCodecs()) {
          ExpectReferencePages(LayoutOf(2, head_dim, codec, codec, type != ValueType::kFp16),
                               kv.view());
        }
      }
    }
  }
}

// Sparse small integers: rotated values repeat, and tie with each other and with thresholds.
TEST_F(EncodeTest, WritesTheReferencesBytesForTies) {
  for (int head_dim : kHeadDims) {
    std::mt19937 rng(17);
    std::uniform_int_distribution<int> pick(-8, 8);
    const TestKv kv(ValueType::kBf16, KvOrder::kNhd, 4 * kPageTokens, 2, head_dim,
                    [&](bool, int, int, int channel) {
                      return channel % 16 == 0 ? static_cast<float>(pick(rng)) : 0.0f;
                    });
    for (Codec codec : ImplementedCodecs()) {
      ExpectReferencePages(LayoutOf(2, head_dim, codec, codec, false), kv.view());
      ExpectReferencePages(LayoutOf(2, head_dim, codec, codec, true), kv.view());
    }
  }
}

// Vectors whose rotation has values at thresholds, as nearly as the type can say.
TEST_F(EncodeTest, WritesTheReferencesBytesAtThresholds) {
  constexpr int kHeadDim = 128;
  for (Codec codec : {Codec::kTurbo2, Codec::kTurbo3, Codec::kTurbo4}) {
    const auto thresholds = TurboThresholds(codec);
    std::mt19937 rng(3);
    std::vector<std::vector<float>> vectors;
    for (int i = 0; i < 2 * kPageTokens; ++i) {
      std::vector<double> y(kHeadDim);
      double square = 0;
      for (double& value : y) {
        value = thresholds[rng() % thresholds.size()];
        square += value * value;
      }
      // The first value takes up what is missing from length one: all others are at thresholds.
      y[0] = std::sqrt(std::max(0.0, 1.0 - (square - y[0] * y[0])));
      reference::UnrotateGroup(absl::MakeSpan(y));
      vectors.emplace_back(y.begin(), y.end());
    }
    for (ValueType type : kTypes) {
      const TestKv kv(type, KvOrder::kNhd, kPageTokens, 1, kHeadDim,
                      [&](bool is_v, int token, int, int channel) {
                        return vectors[(is_v ? kPageTokens : 0) + token][channel];
                      });
      ExpectReferencePages(LayoutOf(1, kHeadDim, codec, codec, false), kv.view());
    }
  }
}

TEST_F(EncodeTest, WritesTheReferencesBytesAtEveryScale) {
  for (int power : {-130, -60, -20, -15, -13, -12, -11, 8, 11, 13, 15, 20, 100, 120}) {
    SCOPED_TRACE(power);
    const auto normal = GaussianValues(23);
    const TestKv kv(ValueType::kBf16, KvOrder::kNhd, 2 * kPageTokens, 2, 128,
                    [&](bool v, int token, int head, int channel) {
                      // The second page keeps an exponent of its own.
                      const int shift = token < kPageTokens ? power : 0;
                      return std::ldexp(normal(v, token, head, channel), shift);
                    });
    for (Codec codec : {Codec::kTurbo3, Codec::kInt5, Codec::kQ8_0, Codec::kFp16, Codec::kBf16}) {
      ExpectReferencePages(LayoutOf(2, 128, codec, codec, true), kv.view());
    }
  }
}

// A mean that is much larger than what varies, as K with a bias has.
TEST_F(EncodeTest, WritesTheReferencesBytesForALargeMean) {
  for (float bias : {30.0f, 300.0f, 3000.0f}) {
    const auto normal = GaussianValues(29);
    const TestKv kv(ValueType::kBf16, KvOrder::kNhd, 2 * kPageTokens, 2, 128,
                    [&](bool v, int token, int head, int channel) {
                      const float large = channel % 32 == 5 ? bias : 0.0f;
                      return normal(v, token, head, channel) + large;
                    });
    for (Codec codec : {Codec::kTurbo3, Codec::kTurbo4, Codec::kInt6}) {
      ExpectReferencePages(LayoutOf(2, 128, codec, codec, true), kv.view());
      ExpectReferencePages(LayoutOf(2, 128, codec, codec, false), kv.view());
    }
  }
}

TEST_F(EncodeTest, TakesStridesWithGaps) {
  constexpr int kHeads = 2, kHeadDim = 128, kTokens = kPageTokens;
  constexpr int kTokenStride = kHeads * (kHeadDim + 64) + 32, kHeadStride = kHeadDim + 64;
  const TestKv dense(ValueType::kBf16, KvOrder::kNhd, kTokens, kHeads, kHeadDim,
                     GaussianValues(31));
  const auto spread = [&](const void* from) {
    std::vector<uint16_t> to(size_t{kTokens} * kTokenStride, 0x7fc0);  // NaNs between
    for (int t = 0; t < kTokens; ++t) {
      for (int h = 0; h < kHeads; ++h) {
        std::memcpy(&to[t * kTokenStride + h * kHeadStride],
                    static_cast<const uint16_t*>(from) + (t * kHeads + h) * kHeadDim, 2 * kHeadDim);
      }
    }
    return DeviceBuffer<uint16_t>(to);
  };
  const DeviceBuffer<uint16_t> k = spread(dense.view().k);
  const DeviceBuffer<uint16_t> v = spread(dense.view().v);
  DeviceKvSource source;
  source.k = k.data();
  source.v = v.data();
  source.token_stride = kTokenStride;
  source.head_stride = kHeadStride;
  for (Codec codec : {Codec::kTurbo3, Codec::kQ4_0}) {
    ExpectReferencePages(LayoutOf(kHeads, kHeadDim, codec, codec, true), dense.view(), source);
  }
}

// Tokens of two pages in shuffled slots of an engine's cache; strides as in encode.h.
class PagedCache {
 public:
  PagedCache(const KvView& kv, int kv_heads, int head_dim, bool is_hnd, int block_tokens)
      : slots_(HostSlots(kv.tokens, block_tokens)),
        device_slots_(slots_),
        source_(SourceOf(kv, kv_heads, head_dim, is_hnd, block_tokens)),
        k_(Scatter(kv, kv.k, kv_heads, head_dim)),
        v_(Scatter(kv, kv.v, kv_heads, head_dim)) {
    source_.k = k_.data();
    source_.v = v_.data();
    source_.slot_mapping = device_slots_.data();
  }

  const DeviceKvSource& source() const { return source_; }
  void SkipToken(int token) {
    slots_[token] = -1;
    device_slots_.Upload(slots_);
  }

 private:
  static std::vector<int64_t> HostSlots(int tokens, int block_tokens) {
    std::vector<int64_t> slots(static_cast<size_t>(tokens) + 3 * block_tokens);
    for (size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<int64_t>(i);
    std::shuffle(slots.begin(), slots.end(), std::mt19937(41));
    slots.resize(static_cast<size_t>(tokens));
    return slots;
  }
  static DeviceKvSource SourceOf(const KvView& kv, int kv_heads, int head_dim, bool is_hnd,
                                 int block_tokens) {
    DeviceKvSource source;
    source.type = kv.type;
    source.block_tokens = block_tokens;
    source.token_stride = is_hnd ? head_dim : kv_heads * head_dim;
    source.head_stride = is_hnd ? block_tokens * head_dim : head_dim;
    source.block_stride = int64_t{block_tokens} * kv_heads * head_dim;
    return source;
  }
  std::vector<uint8_t> Scatter(const KvView& kv, const void* data, int kv_heads,
                               int head_dim) const {
    const int64_t value_bytes = ValueBytes(kv.type);
    const int64_t blocks = (kv.tokens + 4 * source_.block_tokens) / source_.block_tokens;
    std::vector<uint8_t> cache(static_cast<size_t>(blocks * source_.block_stride * value_bytes),
                               0xff);  // not a number, in every type
    for (int t = 0; t < kv.tokens; ++t) {
      for (int h = 0; h < kv_heads; ++h) {
        const int64_t index = slots_[t] / source_.block_tokens * source_.block_stride +
                              slots_[t] % source_.block_tokens * source_.token_stride +
                              h * source_.head_stride;
        const auto* from = static_cast<const uint8_t*>(data) +
                           (t * kv.token_stride + h * kv.head_stride) * value_bytes;
        std::memcpy(&cache[static_cast<size_t>(index * value_bytes)], from,
                    static_cast<size_t>(value_bytes * head_dim));
      }
    }
    return cache;
  }

  std::vector<int64_t> slots_;
  DeviceBuffer<int64_t> device_slots_;
  DeviceKvSource source_;
  DeviceBuffer<uint8_t> k_;
  DeviceBuffer<uint8_t> v_;
};

TEST_F(EncodeTest, ReadsAnEnginesPagedCache) {
  for (bool is_hnd : {false, true}) {
    for (int block_tokens : {1, 16, 48}) {
      const TestKv kv(ValueType::kBf16, KvOrder::kNhd, 2 * kPageTokens, 2, 128, GaussianValues(37));
      const PagedCache cache(kv.view(), 2, 128, is_hnd, block_tokens);
      for (Codec codec : {Codec::kTurbo3, Codec::kInt4, Codec::kFp8E4m3}) {
        ExpectReferencePages(LayoutOf(2, 128, codec, codec, true), kv.view(), cache.source());
      }
    }
  }
}

TEST_F(EncodeTest, ReadsAPagedCacheOfEveryHeadDimAndType) {
  for (int head_dim : {64, 128, 256}) {
    for (ValueType type : kTypes) {
      const TestKv kv(type, KvOrder::kNhd, 2 * kPageTokens, 2, head_dim, GaussianValues(39));
      const PagedCache cache(kv.view(), 2, head_dim, false, 16);
      for (Codec codec : {Codec::kTurbo4, Codec::kInt5}) {
        ExpectReferencePages(LayoutOf(2, head_dim, codec, codec, true), kv.view(), cache.source());
      }
    }
  }
}

TEST_F(EncodeTest, LeavesPagesWithoutSlotsAlone) {
  const TestKv kv(ValueType::kBf16, KvOrder::kNhd, 3 * kPageTokens, 2, 128, GaussianValues(43));
  for (Codec codec : {Codec::kTurbo4, Codec::kInt6, Codec::kQ8_0}) {
    PagedCache cache(kv.view(), 2, 128, false, 16);
    cache.SkipToken(kPageTokens + 77);
    const PageLayout layout = LayoutOf(2, 128, codec, codec, true);
    EncodeRun run(layout, 3);
    EncodeArguments arguments = run.Arguments();
    arguments.source = cache.source();
    ASSERT_TRUE(EncodePages(arguments, nullptr).ok());
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(run.Page(1), std::vector<uint8_t>(layout.page_bytes, 0xff));
    for (int page : {0, 2}) {
      EXPECT_EQ(Difference(layout, run.Page(page), ReferencePage(layout, kv.view(), page)), "");
    }
    EXPECT_EQ(run.NonFinitePage(), 0u);
  }
}

TEST_F(EncodeTest, ReportsThePageOfAValueThatIsNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (Codec codec : {Codec::kTurbo3, Codec::kInt8, Codec::kBf16, Codec::kQ8_0}) {
    for (ValueType type : kTypes) {
      for (float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
        for (bool in_v : {false, true}) {
          TestKv kv(type, KvOrder::kNhd, 4 * kPageTokens, 2, 128, GaussianValues(47));
          const int token = 2 * kPageTokens + 127;
          in_v ? kv.SetV(token, 1, 127, bad) : kv.SetK(token, 1, 127, bad);
          const DeviceKv device(kv.view(), 2, 128);
          const PageLayout layout = LayoutOf(2, 128, codec, codec, true);
          EncodeRun run(layout, 4);
          EncodeArguments arguments = run.Arguments();
          arguments.source = device.source();
          ASSERT_TRUE(EncodePages(arguments, nullptr).ok());
          ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
          EXPECT_EQ(run.NonFinitePage(), 3u) << CodecName(codec);
          for (int page : {0, 1, 3}) {
            EXPECT_EQ(Difference(layout, run.Page(page), ReferencePage(layout, kv.view(), page)),
                      "");
          }
        }
      }
    }
  }
}

TEST_F(EncodeTest, EncodesNothingForNoPages) {
  const PageLayout layout = LayoutOf(1, 128, Codec::kTurbo3, Codec::kTurbo3, true);
  EncodeRun run(layout, 1);
  EncodeArguments arguments = run.Arguments();
  arguments.pages = 0;
  EXPECT_TRUE(EncodePages(arguments, nullptr).ok());
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(run.Page(0), std::vector<uint8_t>(layout.page_bytes, 0xff));
}

TEST_F(EncodeTest, MayBeCapturedIntoAGraph) {
  const TestKv kv(ValueType::kBf16, KvOrder::kNhd, 2 * kPageTokens, 2, 128, GaussianValues(53));
  const DeviceKv device(kv.view(), 2, 128);
  const PageLayout layout = LayoutOf(2, 128, Codec::kTurbo4, Codec::kTurbo3, true);
  EncodeRun run(layout, 2);
  EncodeArguments arguments = run.Arguments();
  arguments.source = device.source();
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  const absl::Status status = EncodePages(arguments, stream);
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  for (int i = 0; i < 2; ++i) ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  for (int page = 0; page < 2; ++page) {
    EXPECT_EQ(Difference(layout, run.Page(page), ReferencePage(layout, kv.view(), page)), "");
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace turbokv::cuda
