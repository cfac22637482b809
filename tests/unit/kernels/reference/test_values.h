// K/V values and pages for tests: every source type, any layout, fixed seeds.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/format/page_header.h"
#include "kernels/format/small_floats.h"
#include "kernels/format/tensor_sections.h"
#include "kernels/kv_view.h"
#include "kernels/reference/codec.h"

namespace turbokv::testing {

struct ValuePosition {
  PageTensor tensor;
  int token;
  int head;
  int channel;
};
using ValueFunction = std::function<double(const ValuePosition&)>;

// [tokens][kv_heads][head_dim] values of `type`, owned.
class TestKv {
 public:
  TestKv(ValueType type, int tokens, int kv_heads, int head_dim, const ValueFunction& value)
      : type_(type), tokens_(tokens), kv_heads_(kv_heads), head_dim_(head_dim) {
    for (PageTensor tensor : {PageTensor::kK, PageTensor::kV}) {
      for (int t = 0; t < tokens; ++t) {
        for (int h = 0; h < kv_heads; ++h) {
          for (int c = 0; c < head_dim; ++c) Set({tensor, t, h, c}, value({tensor, t, h, c}));
        }
      }
    }
  }

  void Set(const ValuePosition& position, double value) {
    uint8_t* bytes = Bytes(position);
    const float single = static_cast<float>(value);
    const uint16_t half = type_ == ValueType::kBf16 ? FloatToBf16(single) : DoubleToFp16(value);
    if (type_ == ValueType::kFp32) {
      std::memcpy(bytes, &single, sizeof(single));
    } else {
      std::memcpy(bytes, &half, sizeof(half));
    }
  }

  double Get(const ValuePosition& position) const {
    const uint8_t* bytes = const_cast<TestKv*>(this)->Bytes(position);
    float single;
    uint16_t half;
    std::memcpy(&half, bytes, sizeof(half));
    if (type_ == ValueType::kBf16) return Bf16ToFloat(half);
    if (type_ == ValueType::kFp16) return Fp16ToFloat(half);
    std::memcpy(&single, bytes, sizeof(single));
    return single;
  }

  KvView View() const {
    return NhdView(type_, k_.data(), v_.data(), tokens_, kv_heads_, head_dim_);
  }
  int tokens() const { return tokens_; }
  int kv_heads() const { return kv_heads_; }
  int head_dim() const { return head_dim_; }

 private:
  uint8_t* Bytes(const ValuePosition& p) {
    std::vector<uint8_t>& values = p.tensor == PageTensor::kK ? k_ : v_;
    values.resize(size_t{1} * tokens_ * kv_heads_ * head_dim_ * ValueBytes(type_));
    const size_t index = (size_t{1} * p.token * kv_heads_ + p.head) * head_dim_ + p.channel;
    return values.data() + index * ValueBytes(type_);
  }

  ValueType type_;
  int tokens_, kv_heads_, head_dim_;
  std::vector<uint8_t> k_, v_;
};

// Independent normal values.
inline ValueFunction Gaussian(uint32_t seed, double sigma = 1.0) {
  return [random = std::mt19937_64(seed), normal = std::normal_distribution<double>(0, sigma)](
             const ValuePosition&) mutable { return normal(random); };
}

inline ValueFunction Constant(double value) {
  return [value](const ValuePosition&) { return value; };
}

inline PageLayout LayoutOf(const PageShape& shape) {
  const absl::StatusOr<PageLayout> layout = PageLayout::For(shape);
  EXPECT_TRUE(layout.ok()) << layout.status();
  return *layout;
}

// An encoded page of values; K mean wherever the codec can have one, unless `k_mean` is false.
inline PageShape ShapeFor(Codec k, Codec v, const TestKv& kv, bool k_mean = true) {
  return {kv.kv_heads(), kv.head_dim(), k, v, k_mean && TraitsOf(k).scale_kind != ScaleKind::kNone};
}

inline std::vector<uint8_t> Encode(const PageShape& shape, const TestKv& kv,
                                   const PageIdentity& identity = {}) {
  const PageLayout layout = LayoutOf(shape);
  std::vector<uint8_t> page(layout.page_bytes, 0xab);
  const absl::Status status =
      reference::EncodePage(layout, identity, kv.View(), absl::MakeSpan(page));
  EXPECT_TRUE(status.ok()) << status;
  return page;
}

// The page must outlive the view.
inline PageView Parse(const std::vector<uint8_t>& page) {
  const absl::StatusOr<PageView> view = ParsePage(page);
  EXPECT_TRUE(view.ok()) << view.status();
  EXPECT_TRUE(VerifyChecksum(*view).ok());
  return *view;
}

// Decoded [tokens][kv_heads][head_dim].
struct Decoded {
  std::vector<float> k, v;
  const std::vector<float>& of(PageTensor tensor) const { return tensor == PageTensor::kK ? k : v; }
};

inline Decoded Decode(const std::vector<uint8_t>& page) {
  const PageView view = Parse(page);
  const PageShape& shape = view.layout.shape;
  const size_t count = size_t{view.header.tokens} * shape.kv_heads * shape.head_dim;
  Decoded decoded{std::vector<float>(count, -777.0f), std::vector<float>(count, -777.0f)};
  reference::DecodePage(view, {decoded.k.data(), decoded.v.data(),
                               ptrdiff_t{1} * shape.kv_heads * shape.head_dim, shape.head_dim});
  return decoded;
}

// Squared error of a tensor relative to its energy.
inline double RelativeMse(const TestKv& kv, const Decoded& decoded, PageTensor tensor) {
  double error = 0, energy = 0;
  size_t i = 0;
  for (int t = 0; t < kv.tokens(); ++t) {
    for (int h = 0; h < kv.kv_heads(); ++h) {
      for (int c = 0; c < kv.head_dim(); ++c, ++i) {
        const double value = kv.Get({tensor, t, h, c});
        const double difference = decoded.of(tensor)[i] - value;
        error += difference * difference;
        energy += value * value;
      }
    }
  }
  return energy == 0 ? error : error / energy;
}

inline std::vector<Codec> ImplementedCodecs() {
  std::vector<Codec> codecs;
  for (const CodecTraits& traits : AllCodecs()) {
    if (traits.implemented) codecs.push_back(traits.codec);
  }
  return codecs;
}

}  // namespace turbokv::testing
