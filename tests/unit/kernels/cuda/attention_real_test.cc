// K and V of a real model, and needles in a cache of a million tokens.
#include <cmath>
#include <random>

#include "client/safetensors.h"
#include "gtest/gtest.h"
#include "kernels/cpu/codec.h"
#include "kernels/cuda/attention/attention.h"
#include "tests/unit/kernels/cuda/attention_harness.h"
#include "tests/unit/kernels/cuda/test_data.h"

namespace turbokv::cuda::testing {
namespace {

class AttentionRealTest : public GpuTest {};

// Every layer of the capture, K and V as they are, random queries of their scale.
TEST_F(AttentionRealTest, MatchesOnCapturedKv) {
  const auto file =
      SafetensorsFile::Open(SourcePath("examples/data/captures/tiny-d128.safetensors"));
  ASSERT_TRUE(file.ok()) << file.status();
  for (int layer = 0; file->Get(absl::StrCat("layers.", layer, ".k")).ok(); ++layer) {
    const Tensor k_tensor = *file->Get(absl::StrCat("layers.", layer, ".k"));
    const std::vector<float> k = *ToFloats(k_tensor);
    const std::vector<float> v = *ToFloats(*file->Get(absl::StrCat("layers.", layer, ".v")));
    const int kv_heads = static_cast<int>(k_tensor.shape[0]);
    const int tokens = static_cast<int>(k_tensor.shape[1]);
    const int head_dim = static_cast<int>(k_tensor.shape[2]);
    const int pages = std::min(6, tokens / kPageTokens - 1);
    for (const auto& [k_codec, v_codec] : {std::pair{Codec::kInt5, Codec::kInt5},
                                           {Codec::kInt6, Codec::kInt6},
                                           {Codec::kTurbo4, Codec::kTurbo3},
                                           {Codec::kTurbo3, Codec::kTurbo3},
                                           {Codec::kBf16, Codec::kBf16}}) {
      SCOPED_TRACE(absl::StrCat("layer ", layer, " ", CodecName(k_codec)));
      AttentionHarness({.shape = {4 * kv_heads, kv_heads, head_dim},
                        .pools = OnePool(k_codec, v_codec),
                        .sequences = {{pages, 100}},
                        .source_type = ValueType::kFp32,
                        .values =
                            [&](bool is_v, int token, int head, int c) {
                              return (is_v ? v : k)[(size_t(head) * tokens + token) * head_dim + c];
                            }})
          .ExpectMatch();
    }
  }
}

// A cache of 2^20 tokens of one KV head. Pages repeat, but for one page at each of 64 depths, which
// holds a planted key; sequence i of the batch asks for needle i.
class NeedleCache {
 public:
  static constexpr int kHeadDim = 128;
  static constexpr int kPages = 8192;
  static constexpr int kNeedles = 64;
  static constexpr int kPlainPages = 64;

  explicit NeedleCache(Codec codec) : pool_shape_{1, kHeadDim, codec, codec, true} {
    std::mt19937 rng(7);
    std::normal_distribution<float> normal;
    for (int i = 0; i < kNeedles; ++i) {
      std::vector<float> key(kHeadDim), value(kHeadDim);
      for (float& x : key) x = normal(rng);
      for (float& x : value) x = normal(rng);
      keys_.push_back(key);
      values_.push_back(value);
    }
    const PageLayout layout = *PageLayout::For(pool_shape_);
    const int64_t page_bytes = static_cast<int64_t>(layout.page_bytes);
    memory_ = std::make_unique<DeviceBuffer<uint8_t>>(page_bytes * (kPlainPages + kNeedles));
    pool_ = {pool_shape_, memory_->data(), page_bytes, kPlainPages + kNeedles};
    for (int page = 0; page < pool_.page_count; ++page) {
      const int needle = page - kPlainPages;
      const ::turbokv::testing::TestKv kv(ValueType::kBf16, ::turbokv::testing::KvOrder::kNhd,
                                          kPageTokens, 1, kHeadDim,
                                          [&](bool is_v, int token, int, int c) {
                                            if (needle >= 0 && token == NeedleToken(needle)) {
                                              return (is_v ? values_ : keys_)[needle][c];
                                            }
                                            return normal(rng);
                                          });
      std::vector<uint8_t> bytes(layout.page_bytes);
      EXPECT_TRUE(cpu::EncodePage(layout, {}, kv.view(), absl::MakeSpan(bytes)).ok());
      EXPECT_EQ(cudaMemcpy(memory_->data() + page * page_bytes, bytes.data(), bytes.size(),
                           cudaMemcpyHostToDevice),
                cudaSuccess);
    }
  }

  // The page of the sequence that holds needle i: depths are even, the first and last page
  // included.
  static int Depth(int needle) { return needle * (kPages - 1) / (kNeedles - 1); }
  static int NeedleToken(int needle) { return needle * 37 % kPageTokens; }

  // Cosine of what needle i's query finds with its value.
  std::vector<double> Ask() {
    std::vector<int32_t> table(size_t{kNeedles} * kPages);
    std::vector<uint16_t> q;
    for (int i = 0; i < kNeedles; ++i) {
      for (int page = 0; page < kPages; ++page)
        table[size_t(i) * kPages + page] = page % kPlainPages;
      for (int j = 0; j < kNeedles; ++j) table[size_t(i) * kPages + Depth(j)] = kPlainPages + j;
      for (float x : keys_[i]) q.push_back(FloatToBf16Bits(x));
    }
    AttentionConfig config;
    config.shape = {1, 1, kHeadDim};
    config.max_batch = kNeedles;
    config.max_pages = kPages;
    config.pools = {pool_shape_};
    const auto attention = DecodeAttention::Create(config);
    EXPECT_TRUE(attention.ok()) << attention.status();
    DeviceBuffer<int32_t> device_table(table);
    DeviceBuffer<int32_t> lengths(std::vector<int32_t>(kNeedles, kPages * kPageTokens));
    DeviceBuffer<uint16_t> device_q(q), out(q.size());
    DeviceBuffer<uint8_t> workspace((*attention)->workspace_bytes());
    AttentionArguments arguments;
    arguments.batch = kNeedles;
    arguments.pools = &pool_;
    arguments.block_tables = device_table.data();
    arguments.packed_tokens = lengths.data();
    arguments.q = device_q.data();
    arguments.out = out.data();
    // A needle scores about 28, other tokens about 28 / sqrt(head_dim) = 2.5 times a Gaussian.
    arguments.softmax_scale = 28.0f / kHeadDim;
    arguments.workspace = workspace.data();
    const absl::Status status = (*attention)->Run(arguments, nullptr);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const std::vector<uint16_t> found = out.Download();
    std::vector<double> cosines;
    for (int i = 0; i < kNeedles; ++i) {
      double dot = 0, norm = 0, value_norm = 0;
      for (int c = 0; c < kHeadDim; ++c) {
        const double x = Bf16BitsToFloat(found[size_t(i) * kHeadDim + c]);
        dot += x * values_[i][c];
        norm += x * x;
        value_norm += double{values_[i][c]} * values_[i][c];
      }
      cosines.push_back(dot / std::sqrt(norm * value_norm));
    }
    return cosines;
  }

 private:
  static uint16_t FloatToBf16Bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return static_cast<uint16_t>(bits >> 16);
  }
  static float Bf16BitsToFloat(uint16_t value) {
    const uint32_t bits = uint32_t{value} << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
  }

  PageShape pool_shape_;
  std::vector<std::vector<float>> keys_, values_;
  std::unique_ptr<DeviceBuffer<uint8_t>> memory_;
  PagePool pool_;
};

TEST_F(AttentionRealTest, FindsNeedlesAtEveryDepthOfAMillionTokens) {
  for (Codec codec : {Codec::kTurbo4, Codec::kTurbo3}) {
    const std::vector<double> cosines = NeedleCache(codec).Ask();
    for (size_t i = 0; i < cosines.size(); ++i) {
      EXPECT_GT(cosines[i], 0.9) << CodecName(codec) << " needle " << i << " at page "
                                 << NeedleCache::Depth(static_cast<int>(i));
    }
  }
}

}  // namespace
}  // namespace turbokv::cuda::testing
