#include "tests/unit/kernels/cuda/attention_oracle.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "kernels/cuda/primitives/page_format.cuh"
#include "kernels/format/head_groups.h"
#include "kernels/format/small_floats.h"
#include "kernels/format/tensor_sections.h"
#include "kernels/reference/codec.h"
#include "kernels/reference/rotation.h"

namespace turbokv::cuda::testing {
namespace {

constexpr double kNone = -std::numeric_limits<double>::infinity();

double TableValue(Codec codec, uint32_t code) {
  const IntegerTable table = IntegerTableOf(codec);
  const int index = static_cast<int>(code) - table.count;
  return (index >= 0 ? table.magnitudes[index] : -table.magnitudes[-index - 1]) / table.divisor;
}

// One turbo tensor of one head, [tokens][head_dim].
std::vector<double> DecodeTurboHead(const PageView& page, PageTensor tensor, int head) {
  const TensorSections<const uint8_t> sections(page.layout, tensor, page.Slice(head));
  const HeadGroups groups = GroupsOf(page.layout.shape.head_dim);
  const int dim = page.layout.shape.head_dim;
  std::vector<double> values(size_t{page.header.tokens} * dim);
  for (int token = 0; token < page.header.tokens; ++token) {
    for (int group = 0; group < groups.count; ++group) {
      const absl::Span<double> row = absl::MakeSpan(values).subspan(
          size_t(token) * dim + groups.begin(group), groups.channels[group]);
      const double scale = Fp16ToFloat(ReadScale(sections, group, token));
      for (size_t c = 0; c < row.size(); ++c) {
        const uint32_t code = ReadCode(sections, token, groups.begin(group) + static_cast<int>(c));
        row[c] = scale * TableValue(sections.codec, code) / std::sqrt(double(row.size()));
      }
      reference::UnrotateGroup(row);
    }
  }
  return values;
}

// [tokens][kv_heads][head_dim], with the values of the kernels' table.
std::vector<double> DecodeTurboTensor(const PageView& page, PageTensor tensor) {
  const PageShape& shape = page.layout.shape;
  const bool has_mean = tensor == PageTensor::kK && shape.k_mean;
  const int exponent = tensor == PageTensor::kK ? page.header.k_exponent : page.header.v_exponent;
  std::vector<double> values(size_t{page.header.tokens} * shape.kv_heads * shape.head_dim);
  for (int head = 0; head < shape.kv_heads; ++head) {
    const std::vector<double> decoded = DecodeTurboHead(page, tensor, head);
    std::vector<double> mean(shape.head_dim);
    for (int c = 0; has_mean && c < shape.head_dim; ++c) {
      uint16_t bits;
      std::memcpy(&bits, page.Slice(head) + page.layout.k_mean.offset_bytes + 2 * c, 2);
      mean[c] = Fp16ToFloat(bits);
    }
    for (int token = 0; token < page.header.tokens; ++token) {
      for (int c = 0; c < shape.head_dim; ++c) {
        values[(size_t(token) * shape.kv_heads + head) * shape.head_dim + c] =
            std::ldexp(decoded[size_t(token) * shape.head_dim + c] + mean[c], exponent);
      }
    }
  }
  return values;
}

std::vector<double> DecodePublicTensor(const PageView& page, PageTensor tensor) {
  const int token_values = page.layout.shape.kv_heads * page.layout.shape.head_dim;
  std::vector<float> values(size_t{page.header.tokens} * token_values);
  KvOutput output{nullptr, nullptr, token_values, page.layout.shape.head_dim};
  (tensor == PageTensor::kK ? output.k : output.v) = values.data();
  reference::DecodePage(page, output);
  return {values.begin(), values.end()};
}

void AppendTensor(const PageView& page, PageTensor tensor, Centroids centroids,
                  std::vector<double>& target) {
  const PageShape& shape = page.layout.shape;
  const Codec codec = tensor == PageTensor::kK ? shape.k_codec : shape.v_codec;
  const std::vector<double> values = centroids == Centroids::kTable && IsTurbo(codec)
                                         ? DecodeTurboTensor(page, tensor)
                                         : DecodePublicTensor(page, tensor);
  target.insert(target.end(), values.begin(), values.end());
}

double RoundToFp16(double value) { return Fp16ToFloat(DoubleToFp16(value)); }

class Attention {
 public:
  Attention(const AttentionShape& shape, const AttentionOptions& options,
            const DecodedSequence& sequence, bool fp16)
      : shape_(shape), options_(options), sequence_(sequence), fp16_(fp16) {}

  double Attend(const float* q, int64_t position, int q_head, double* out) const {
    const int head = q_head / (shape_.q_heads / shape_.kv_heads);
    const int64_t window = options_.window_tokens;
    const int64_t begin = window == 0 ? 0 : std::max<int64_t>(0, position - window + 1);
    const int64_t end = std::min<int64_t>(position + 1, sequence_.tokens);
    std::vector<double> scores;
    double largest = options_.sink_logits.empty() ? kNone : options_.sink_logits[q_head];
    const double sink = largest;
    for (int64_t token = begin; token < end; ++token) {
      scores.push_back(Score(q, Row(sequence_.k, token, head)));
      largest = std::max(largest, scores.back());
    }
    std::fill(out, out + shape_.head_dim, 0.0);
    if (largest == kNone) return kNone;
    double sum = std::exp(sink - largest);
    for (double score : scores) sum += std::exp(score - largest);
    for (size_t i = 0; i < scores.size(); ++i) {
      const double exact = std::exp(scores[i] - largest);
      const double weight = (fp16_ ? RoundToFp16(exact) : exact) / sum;
      const double* v = Row(sequence_.v, begin + static_cast<int64_t>(i), head);
      for (int c = 0; c < shape_.head_dim; ++c) out[c] += weight * v[c];
    }
    return largest + std::log(sum);
  }

 private:
  const double* Row(const std::vector<double>& values, int64_t token, int head) const {
    return values.data() + (token * shape_.kv_heads + head) * shape_.head_dim;
  }
  double Score(const float* q, const double* k) const {
    // Several sums, so that the compiler may use vectors: head_dim is a multiple of 64.
    constexpr int kSums = 8;
    double sums[kSums] = {};
    for (int c = 0; c < shape_.head_dim; c += kSums) {
      for (int i = 0; i < kSums; ++i) sums[i] += q[c + i] * k[c + i];
    }
    const double dot = std::accumulate(sums, sums + kSums, 0.0);
    const double score = options_.softmax_scale * dot;
    return options_.soft_cap == 0 ? score
                                  : options_.soft_cap * std::tanh(score / options_.soft_cap);
  }

  const AttentionShape& shape_;
  const AttentionOptions& options_;
  const DecodedSequence& sequence_;
  const bool fp16_;
};

OracleResult AttendAll(const Attention& attention, const AttentionShape& shape,
                       absl::Span<const int64_t> positions, absl::Span<const float> q) {
  OracleResult result;
  result.out.resize(q.size());
  result.lse.resize(positions.size() * shape.q_heads);
  for (size_t row = 0; row < result.lse.size(); ++row) {
    result.lse[row] = attention.Attend(
        q.data() + row * shape.head_dim, positions[row / shape.q_heads],
        static_cast<int>(row % shape.q_heads), result.out.data() + row * shape.head_dim);
  }
  return result;
}

}  // namespace

void AppendPage(const PageView& page, Centroids centroids, DecodedSequence* sequence) {
  AppendTensor(page, PageTensor::kK, centroids, sequence->k);
  AppendTensor(page, PageTensor::kV, centroids, sequence->v);
  sequence->tokens += page.header.tokens;
}

OracleResult OracleAttention(const AttentionShape& shape, const AttentionOptions& options,
                             const DecodedSequence& sequence, absl::Span<const int64_t> positions,
                             absl::Span<const float> q) {
  return AttendAll(Attention(shape, options, sequence, false), shape, positions, q);
}

OracleResult Fp16Attention(const AttentionShape& shape, const AttentionOptions& options,
                           const DecodedSequence& sequence, absl::Span<const int64_t> positions,
                           absl::Span<const float> q) {
  DecodedSequence rounded = sequence;
  for (double& value : rounded.k) value = RoundToFp16(value);
  for (double& value : rounded.v) value = RoundToFp16(value);
  std::vector<float> rounded_q(q.begin(), q.end());
  for (float& value : rounded_q) value = static_cast<float>(RoundToFp16(value));
  return AttendAll(Attention(shape, options, rounded, true), shape, positions, rounded_q);
}

double WorstRowError(absl::Span<const double> actual, absl::Span<const double> expected,
                     int head_dim) {
  double worst = 0;
  for (size_t row = 0; row < expected.size() / head_dim; ++row) {
    double error = 0, norm = 0;
    for (int c = 0; c < head_dim; ++c) {
      const double a = actual[row * head_dim + c], e = expected[row * head_dim + c];
      error += (a - e) * (a - e);
      norm += e * e;
    }
    if (!std::isfinite(error) || (norm == 0 && error > 0)) {
      return std::numeric_limits<double>::infinity();
    }
    if (norm > 0) worst = std::max(worst, std::sqrt(error / norm));
  }
  return worst;
}

}  // namespace turbokv::cuda::testing
