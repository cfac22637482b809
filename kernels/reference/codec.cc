#include "kernels/reference/codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/format/exponent.h"
#include "kernels/format/small_floats.h"
#include "kernels/reference/head_codec.h"
#include "kernels/reference/rotation.h"
#include "kernels/reference/values.h"

namespace turbokv::reference {
namespace {

using VectorBuffer = std::array<double, kMaxHeadDim>;

absl::Status CheckFinite(const KvView& kv, PageTensor tensor, const PageShape& shape) {
  const void* data = tensor == PageTensor::kK ? kv.k : kv.v;
  for (int token = 0; token < kv.tokens; ++token) {
    for (int head = 0; head < shape.kv_heads; ++head) {
      for (int channel = 0; channel < shape.head_dim; ++channel) {
        const double value = ReadValue(kv, data, token, head, channel);
        if (std::isfinite(value)) continue;
        return absl::InvalidArgumentError(
            absl::StrCat(tensor == PageTensor::kK ? "K" : "V", " of token ", token, ", head ", head,
                         ", channel ", channel, " is ", value, "; only finite values are stored"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Validate(const PageLayout& layout, const KvView& kv, absl::Span<uint8_t> page) {
  if (kv.tokens < 1 || kv.tokens > kPageTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("a page takes 1..", kPageTokens, " tokens, not ", kv.tokens));
  }
  if (page.size() != layout.page_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the page buffer has ", page.size(), " bytes; the page ", layout.page_bytes));
  }
  if (kv.k == nullptr || kv.v == nullptr) {
    return absl::InvalidArgumentError("K or V is a null pointer");
  }
  TURBOKV_RETURN_IF_ERROR(CheckFinite(kv, PageTensor::kK, layout.shape));
  return CheckFinite(kv, PageTensor::kV, layout.shape);
}

// Encodes K or V of a page.
class TensorEncoder {
 public:
  TensorEncoder(const PageLayout& layout, const KvView& kv, PageTensor tensor)
      : layout_(layout),
        kv_(kv),
        tensor_(tensor),
        data_(tensor == PageTensor::kK ? kv.k : kv.v),
        codec_(tensor == PageTensor::kK ? layout.shape.k_codec : layout.shape.v_codec),
        head_dim_(layout.shape.head_dim),
        groups_(GroupsOf(head_dim_)),
        exponent_(PageExponent(codec_, kv.type == ValueType::kFp16, MaxSquaredNorm())) {}

  int exponent() const { return exponent_; }

  void EncodeHead(int head, uint8_t* slice) const {
    const TensorSections<uint8_t> sections(layout_, tensor_, slice);
    VectorBuffer mean{};
    if (tensor_ == PageTensor::kK && layout_.shape.k_mean) {
      StoreMean(head, slice + layout_.k_mean.offset_bytes, mean);
    }
    float fp8_scale = 0;
    if (codec_ == Codec::kFp8E4m3) {
      fp8_scale = Fp8Scale(LargestMagnitude(head, mean));
      std::memcpy(sections.scales, &fp8_scale, sizeof(fp8_scale));
    }
    for (int token = 0; token < kv_.tokens; ++token) {
      VectorBuffer buffer = Centred(token, head, mean);
      const absl::Span<const double> vector(buffer.data(), sections.padded_dim);
      if (codec_ == Codec::kFp8E4m3) {
        EncodeFp8Vector(sections, token, fp8_scale, vector);
      } else {
        EncodeVector(sections, groups_, token, vector);
      }
    }
  }

 private:
  double Value(int token, int head, int channel) const {
    return ReadValue(kv_, data_, token, head, channel);
  }

  double MaxSquaredNorm() const {
    const bool rotated = TraitsOf(codec_).rotated;
    const HeadGroups parts = rotated ? groups_ : HeadGroups{1, {kMaxHeadDim, 0}};
    double largest = 0;
    for (int token = 0; token < kv_.tokens; ++token) {
      for (int head = 0; head < layout_.shape.kv_heads; ++head) {
        VectorBuffer vector{};
        for (int c = 0; c < head_dim_; ++c) vector[c] = Value(token, head, c);
        for (int part = 0; part < parts.count; ++part) {
          const absl::Span<const double> values(vector.data() + parts.begin(part),
                                                parts.channels[part]);
          largest = std::max(largest, SumOfSquares(values));
        }
      }
    }
    return largest;
  }

  // Writes the fp16 mean of every channel, and what it stands for, scaled, into `mean`.
  void StoreMean(int head, uint8_t* section, VectorBuffer& mean) const {
    for (int c = 0; c < head_dim_; ++c) {
      double sum = 0;
      for (int token = 0; token < kv_.tokens; ++token) sum += Value(token, head, c);
      const uint16_t bits = DoubleToFiniteFp16(std::ldexp(sum / kv_.tokens, -exponent_));
      std::memcpy(section + 2 * c, &bits, sizeof(bits));
      mean[c] = Fp16ToFloat(bits);
    }
  }

  // A token's vector without exponent and mean, zeros behind the head's last channel.
  VectorBuffer Centred(int token, int head, const VectorBuffer& mean) const {
    VectorBuffer vector{};
    for (int c = 0; c < head_dim_; ++c) {
      vector[c] = std::ldexp(Value(token, head, c), -exponent_) - mean[c];
    }
    return vector;
  }

  float LargestMagnitude(int head, const VectorBuffer& mean) const {
    float largest = 0;
    for (int token = 0; token < kv_.tokens; ++token) {
      const VectorBuffer vector = Centred(token, head, mean);
      for (int c = 0; c < head_dim_; ++c) {
        largest = std::max(largest, std::abs(static_cast<float>(vector[c])));
      }
    }
    return largest;
  }

  const PageLayout& layout_;
  const KvView& kv_;
  const PageTensor tensor_;
  const void* const data_;
  const Codec codec_;
  const int head_dim_;
  const HeadGroups groups_;
  const int exponent_;
};

// Finite even where quantization carried a value beyond the largest float.
float ToFiniteFloat(double value) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  return static_cast<float>(std::clamp(value, -kLargest, kLargest));
}

void DecodeTensor(const PageView& page, PageTensor tensor, const KvOutput& output) {
  const PageLayout& layout = page.layout;
  const bool is_k = tensor == PageTensor::kK;
  float* const values = is_k ? output.k : output.v;
  const int exponent = is_k ? page.header.k_exponent : page.header.v_exponent;
  const HeadGroups groups = GroupsOf(layout.shape.head_dim);
  for (int head = 0; head < layout.shape.kv_heads; ++head) {
    const TensorSections<const uint8_t> sections(layout, tensor, page.Slice(head));
    VectorBuffer mean{};
    if (is_k && layout.shape.k_mean) {
      const uint8_t* section = page.Slice(head) + layout.k_mean.offset_bytes;
      for (int c = 0; c < layout.shape.head_dim; ++c) {
        uint16_t bits;
        std::memcpy(&bits, section + 2 * c, sizeof(bits));
        mean[c] = Fp16ToFloat(bits);
      }
    }
    for (int token = 0; token < page.header.tokens; ++token) {
      VectorBuffer buffer;
      const absl::Span<double> vector(buffer.data(), sections.padded_dim);
      DecodeVector(sections, groups, token, vector);
      float* out = values + token * output.token_stride + head * output.head_stride;
      for (int c = 0; c < layout.shape.head_dim; ++c) {
        out[c] = ToFiniteFloat(std::ldexp(vector[c] + mean[c], exponent));
      }
    }
  }
}

}  // namespace

absl::Status EncodePage(const PageLayout& layout, const PageIdentity& identity, const KvView& kv,
                        absl::Span<uint8_t> page) {
  TURBOKV_RETURN_IF_ERROR(Validate(layout, kv, page));
  std::fill(page.begin(), page.end(), 0);
  const TensorEncoder k(layout, kv, PageTensor::kK);
  const TensorEncoder v(layout, kv, PageTensor::kV);
  for (int head = 0; head < layout.shape.kv_heads; ++head) {
    uint8_t* slice = page.data() + layout.SliceOffset(head);
    k.EncodeHead(head, slice);
    v.EncodeHead(head, slice);
  }
  SealPage(layout, identity, kv.tokens, k.exponent(), v.exponent(), page);
  return absl::OkStatus();
}

void DecodePage(const PageView& page, const KvOutput& output) {
  if (output.k != nullptr) DecodeTensor(page, PageTensor::kK, output);
  if (output.v != nullptr) DecodeTensor(page, PageTensor::kV, output);
}

}  // namespace turbokv::reference
