#include "tests/unit/kernels/cpu/test_values.h"

#include <cmath>
#include <cstring>
#include <memory>

#include "gtest/gtest.h"
#include "kernels/format/small_floats.h"

namespace turbokv::testing {

TestKv::TestKv(ValueType type, KvOrder order, int tokens, int kv_heads, int head_dim,
               const ValueFn& value) {
  const size_t count = static_cast<size_t>(tokens) * kv_heads * head_dim;
  k_.resize(count * ValueBytes(type));
  v_.resize(count * ValueBytes(type));
  view_ = NhdView(type, k_.data(), v_.data(), tokens, kv_heads, head_dim);
  if (order == KvOrder::kHnd) {
    view_.token_stride = head_dim;
    view_.head_stride = static_cast<ptrdiff_t>(tokens) * head_dim;
  }
  for (int token = 0; token < tokens; ++token) {
    for (int head = 0; head < kv_heads; ++head) {
      for (int c = 0; c < head_dim; ++c) {
        SetK(token, head, c, value(false, token, head, c));
        SetV(token, head, c, value(true, token, head, c));
      }
    }
  }
}

void TestKv::Set(std::vector<uint8_t>& bytes, int token, int head, int channel, float value) {
  const ptrdiff_t index = token * view_.token_stride + head * view_.head_stride + channel;
  if (view_.type == ValueType::kFp32) {
    std::memcpy(&bytes[index * 4], &value, 4);
    return;
  }
  const uint16_t bits = view_.type == ValueType::kBf16 ? FloatToBf16(value) : FloatToFp16(value);
  std::memcpy(&bytes[index * 2], &bits, 2);
}

TestKv::ValueFn GaussianValues(uint32_t seed) {
  auto rng = std::make_shared<std::mt19937>(seed);
  auto normal = std::make_shared<std::normal_distribution<float>>();
  return [rng, normal, seed](bool is_v, int, int head, int channel) {
    const float common = is_v ? 0.0f : 2.0f * std::sin(0.7f * channel + head + seed);
    return common + (*normal)(*rng);
  };
}

std::vector<NamedValues> AdversarialValues() {
  return {
      {"zeros", [](bool, int, int, int) { return 0.0f; }},
      {"minusZeros", [](bool, int, int, int) { return -0.0f; }},
      {"constant", [](bool, int, int, int) { return 1.5f; }},
      {"oneHot", [](bool, int t, int, int c) { return c == t % 64 ? 3.0f : 0.0f; }},
      {"alternating", [](bool, int t, int, int c) { return (c + t) % 2 ? 1.0f : -1.0f; }},
      {"ramp", [](bool, int t, int, int c) { return static_cast<float>(c) - t; }},
      {"oneTokenHot", [](bool, int t, int, int c) { return t == 5 ? 0.25f * c : 0.0f; }},
      {"sparse",
       [](bool v, int t, int, int c) { return (c * 7 + t) % 61 == 0 ? (v ? -2.f : 2.f) : 0.f; }},
      {"float denormals", [](bool, int t, int, int c) { return (c - t) * 1e-45f; }},
      {"tiny", [](bool, int t, int, int c) { return (c % 5 - t % 3) * 1e-30f; }},
      {"fp16 denormals", [](bool, int t, int, int c) { return (c % 9 - t % 4) * 6e-8f; }},
      {"around 2^-12", [](bool, int t, int, int c) { return c == t % 64 ? 0x1p-12f : 0.0f; }},
      {"huge", [](bool, int t, int, int c) { return (c % 3 - 1) * (t % 7 + 1) * 4e37f; }},
      {"around 2^15", [](bool, int t, int, int c) { return c == 3 ? 32768.0f - t : 1.0f; }},
      {"fp16 limit", [](bool, int t, int, int c) { return (c + t) % 2 ? 65504.0f : -65504.0f; }},
      {"outlier", [](bool, int t, int, int c) { return c == 17 ? 900.0f + t : 0.01f * (c % 7); }},
      {"powers",
       [](bool, int t, int, int c) { return std::ldexp(c % 2 ? 1.f : -1.f, (c + t) % 20 - 10); }},
      {"equal halves",
       [](bool, int t, int, int c) { return c < 64 ? 1.0f : static_cast<float>(t % 3); }},
  };
}

std::vector<Codec> ImplementedCodecs() {
  std::vector<Codec> codecs;
  for (const CodecTraits& traits : AllCodecs()) {
    if (traits.implemented) codecs.push_back(traits.codec);
  }
  return codecs;
}

PageLayout LayoutOf(int kv_heads, int head_dim, Codec k, Codec v, bool k_mean) {
  const bool can_centre = TraitsOf(k).scale_kind != ScaleKind::kNone;
  const auto layout = PageLayout::For({kv_heads, head_dim, k, v, k_mean && can_centre});
  EXPECT_TRUE(layout.ok()) << layout.status();
  return *layout;
}

}  // namespace turbokv::testing
