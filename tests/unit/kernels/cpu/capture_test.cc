// K and V of a real model: the same bytes as the reference, and attention within float rounding.
#include <algorithm>
#include <cmath>

#include "client/safetensors.h"
#include "gtest/gtest.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/codec.h"
#include "kernels/reference/attention.h"
#include "kernels/reference/codec.h"
#include "tests/unit/kernels/cpu/test_values.h"

namespace turbokv {
namespace {

using testing::ImplementedCodecs;
using testing::LayoutOf;

// Layer 0 of the capture: K and V [kv_heads, tokens, head_dim], q [q_heads, queries, head_dim].
struct Layer {
  std::vector<float> k, v, q;
  int kv_heads, tokens, head_dim, q_heads, queries;

  KvView Tokens(int begin, int count) const {
    return {ValueType::kFp32, k.data() + begin * head_dim,  v.data() + begin * head_dim,
            head_dim,         ptrdiff_t{tokens} * head_dim, count};
  }
};

Layer ReadLayer() {
  const auto file =
      SafetensorsFile::Open(TURBOKV_SOURCE_DIR "/examples/data/captures/tiny-d128.safetensors");
  EXPECT_TRUE(file.ok()) << file.status();
  const auto values = [&](const char* name) { return *ToFloats(*file->Get(name)); };
  const Tensor k = *file->Get("layers.0.k");
  const Tensor q = *file->Get("layers.0.q");
  return {values("layers.0.k"),         values("layers.0.v"),         values("layers.0.q"),
          static_cast<int>(k.shape[0]), static_cast<int>(k.shape[1]), static_cast<int>(k.shape[2]),
          static_cast<int>(q.shape[0]), static_cast<int>(q.shape[1])};
}

TEST(CaptureTest, EncodesTheReferencesBytes) {
  const Layer layer = ReadLayer();
  for (Codec codec : ImplementedCodecs()) {
    for (bool k_mean : {false, true}) {
      const PageLayout layout = LayoutOf(layer.kv_heads, layer.head_dim, codec, codec, k_mean);
      for (int begin = 0; begin < std::min(layer.tokens, 512); begin += kPageTokens) {
        const KvView kv = layer.Tokens(begin, std::min(kPageTokens, layer.tokens - begin));
        std::vector<uint8_t> expected(layout.page_bytes), actual(layout.page_bytes, 0xee);
        ASSERT_TRUE(reference::EncodePage(layout, {}, kv, absl::MakeSpan(expected)).ok());
        ASSERT_TRUE(cpu::EncodePage(layout, {}, kv, absl::MakeSpan(actual)).ok());
        EXPECT_TRUE(actual == expected) << CodecName(codec) << " tokens from " << begin;
      }
    }
  }
}

TEST(CaptureTest, AttendsAsTheReference) {
  const Layer layer = ReadLayer();
  const int tokens = std::min(layer.tokens, 600);
  const AttentionShape shape{layer.q_heads, layer.kv_heads, layer.head_dim};
  AttentionOptions options;
  options.softmax_scale = 1.0f / std::sqrt(static_cast<float>(layer.head_dim));
  // The last query of every head.
  std::vector<float> q;
  for (int head = 0; head < layer.q_heads; ++head) {
    const float* begin = layer.q.data() + ((head + 1) * layer.queries - 1) * layer.head_dim;
    q.insert(q.end(), begin, begin + layer.head_dim);
  }
  for (Codec codec : {Codec::kTurbo3, Codec::kInt5, Codec::kQ8_0, Codec::kFp8E4m3}) {
    const PageLayout layout = LayoutOf(layer.kv_heads, layer.head_dim, codec, codec, true);
    std::vector<std::vector<uint8_t>> pages;
    std::vector<absl::Span<const uint8_t>> spans;
    const int full_pages = tokens / kPageTokens;
    for (int i = 0; i < full_pages; ++i) {
      pages.emplace_back(layout.page_bytes);
      ASSERT_TRUE(cpu::EncodePage(layout, {}, layer.Tokens(i * kPageTokens, kPageTokens),
                                  absl::MakeSpan(pages.back()))
                      .ok());
    }
    for (const auto& page : pages) spans.push_back(page);
    const int in_pages = full_pages * kPageTokens;
    const SequenceKv sequence{spans, 0, layer.Tokens(in_pages, tokens - in_pages)};
    const int64_t positions[] = {tokens - 1};
    std::vector<float> actual(q.size()), expected(q.size());
    ASSERT_TRUE(cpu::DecodeAttention(shape, options, sequence,
                                     {positions, q.data(), actual.data(), nullptr})
                    .ok());
    ASSERT_TRUE(reference::DecodeAttention(shape, options, sequence,
                                           {positions, q.data(), expected.data(), nullptr})
                    .ok());
    double error = 0, norm = 0;
    for (size_t i = 0; i < q.size(); ++i) {
      error += std::pow(double{actual[i]} - expected[i], 2);
      norm += std::pow(double{expected[i]}, 2);
    }
    EXPECT_LE(std::sqrt(error / norm), codec == Codec::kTurbo3 ? 1e-4 : 1e-5) << CodecName(codec);
  }
}

}  // namespace
}  // namespace turbokv
