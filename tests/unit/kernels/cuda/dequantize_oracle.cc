#include "tests/unit/kernels/cuda/dequantize_oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/format/small_floats.h"
#include "kernels/reference/codec.h"

namespace turbokv::cuda::testing {
namespace {

// To nearest even, finite.
float Rounded(ValueType type, double value) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  if (type == ValueType::kFp16) return Fp16ToFloat(DoubleToFiniteFp16(value));
  const auto single = static_cast<float>(std::clamp(value, -kLargest, kLargest));
  return type == ValueType::kFp32 ? single : Bf16ToFloat(FloatToFiniteBf16(single));
}

// Of the K mean of a head as it is added.
double MeanNorm(const PageView& page, int head) {
  double squares = 0;
  const uint8_t* section = page.Slice(head) + page.layout.k_mean.offset_bytes;
  for (int c = 0; c < page.layout.shape.head_dim; ++c) {
    const auto bits = static_cast<uint16_t>(section[2 * c] | section[2 * c + 1] << 8);
    squares += std::pow(double{Fp16ToFloat(bits)}, 2);
  }
  return std::ldexp(std::sqrt(squares), page.header.k_exponent);
}

}  // namespace

std::vector<std::vector<uint8_t>> ReferencePages(const PageLayout& layout, ValueType type,
                                                 const turbokv::testing::TestKv::ValueFn& values,
                                                 int pages, int tokens) {
  std::vector<std::vector<uint8_t>> encoded;
  for (int i = 0; i < pages; ++i) {
    const turbokv::testing::TestKv kv(type, turbokv::testing::KvOrder::kNhd, tokens,
                                      layout.shape.kv_heads, layout.shape.head_dim, values);
    std::vector<uint8_t> page(layout.page_bytes);
    const PageIdentity identity{3, 7u + i, 4096u + 128u * i, 0x1122334455667788};
    const absl::Status status =
        reference::EncodePage(layout, identity, kv.view(), absl::MakeSpan(page));
    EXPECT_TRUE(status.ok()) << status;
    encoded.push_back(std::move(page));
  }
  return encoded;
}

DecodedTensor::DecodedTensor(absl::Span<const uint8_t> bytes, bool is_v) {
  const absl::StatusOr<PageView> page = ParsePage(bytes);
  EXPECT_TRUE(page.ok()) << page.status();
  tokens_ = page->header.tokens;
  heads_ = page->layout.shape.kv_heads;
  head_dim_ = page->layout.shape.head_dim;
  values_.resize(size_t{page->header.tokens} * heads_ * head_dim_);
  KvOutput output{nullptr, nullptr, ptrdiff_t{heads_} * head_dim_, head_dim_};
  (is_v ? output.v : output.k) = values_.data();
  reference::DecodePage(*page, output);
  for (int row = 0; row < tokens_ * heads_; ++row) {
    double squares = 0;
    for (int c = 0; c < head_dim_; ++c)
      squares += std::pow(double{values_[row * head_dim_ + c]}, 2);
    double norm = std::sqrt(squares);
    if (!is_v && page->layout.shape.k_mean) norm = std::max(norm, MeanNorm(*page, row % heads_));
    constexpr double kSmallestFloat = 0x1p-149;
    tolerances_.push_back(norm * 0x1p-20 + kSmallestFloat);
  }
}

std::string DecodedTensor::Complaint(ValueType type, int token, int head, int channel,
                                     float value) const {
  const double expected = Value(token, head, channel);
  const double tolerance = tolerances_[token * heads_ + head];
  const float low = Rounded(type, expected - tolerance);
  const float high = Rounded(type, expected + tolerance);
  if (value >= low && value <= high) return "";
  return absl::StrCat("token ", token, ", head ", head, ", channel ", channel, " is ", value,
                      ", not ", expected, " +- ", tolerance);
}

}  // namespace turbokv::cuda::testing
