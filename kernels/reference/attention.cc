#include "kernels/reference/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/reference/codec.h"
#include "kernels/reference/values.h"

namespace turbokv::reference {
namespace {

// The whole sequence as doubles, [tokens][kv_heads][head_dim].
struct DecodedKv {
  std::vector<double> k;
  std::vector<double> v;
  int64_t tokens = 0;
};

absl::Status AppendPage(const AttentionShape& shape, size_t index, absl::Span<const uint8_t> bytes,
                        DecodedKv* kv) {
  const absl::StatusOr<PageView> page = ParsePage(bytes);
  if (!page.ok()) {
    return absl::Status(page.status().code(),
                        absl::StrCat("page ", index, ": ", page.status().message()));
  }
  const PageShape& page_shape = page->layout.shape;
  if (page_shape.kv_heads != shape.kv_heads || page_shape.head_dim != shape.head_dim) {
    return absl::InvalidArgumentError(absl::StrCat(
        "page ", index, " has ", page_shape.kv_heads, " KV heads of head_dim ", page_shape.head_dim,
        "; the attention has ", shape.kv_heads, " of ", shape.head_dim));
  }
  const int token_values = shape.kv_heads * shape.head_dim;
  std::vector<float> k(size_t{page->header.tokens} * token_values);
  std::vector<float> v(k.size());
  DecodePage(*page, {k.data(), v.data(), token_values, shape.head_dim});
  kv->k.insert(kv->k.end(), k.begin(), k.end());
  kv->v.insert(kv->v.end(), v.begin(), v.end());
  kv->tokens += page->header.tokens;
  return absl::OkStatus();
}

void AppendTail(const AttentionShape& shape, const KvView& tail, DecodedKv* kv) {
  for (int token = 0; token < tail.tokens; ++token) {
    for (int head = 0; head < shape.kv_heads; ++head) {
      for (int channel = 0; channel < shape.head_dim; ++channel) {
        kv->k.push_back(ReadValue(tail, tail.k, token, head, channel));
        kv->v.push_back(ReadValue(tail, tail.v, token, head, channel));
      }
    }
  }
  kv->tokens += tail.tokens;
}

// [first, second) of the sequence's tokens, counted from its first.
std::pair<int64_t, int64_t> VisibleTokens(const AttentionOptions& options,
                                          const SequenceKv& sequence, int64_t tokens,
                                          int64_t position) {
  if (position < sequence.first_position || tokens == 0) return {0, 0};
  const int64_t offset = position - sequence.first_position;
  const int64_t end = std::min(offset, tokens - 1) + 1;
  const int64_t window = options.window_tokens;
  return {window == 0 ? 0 : std::max<int64_t>(0, offset - (window - 1)), end};
}

// One query of one head.
class HeadAttention {
 public:
  HeadAttention(const AttentionShape& shape, const AttentionOptions& options, const DecodedKv& kv,
                int q_head)
      : shape_(shape),
        options_(options),
        kv_(kv),
        kv_head_(q_head / (shape.q_heads / shape.kv_heads)),
        q_head_(q_head) {}

  // Writes head_dim values to `out` and returns the log-sum-exp. Tokens first..end-1 are visible.
  double Attend(const float* q, int64_t first, int64_t end, float* out) const {
    constexpr double kNone = -std::numeric_limits<double>::infinity();
    std::vector<double> scores;
    for (int64_t token = first; token < end; ++token) scores.push_back(Score(q, token));
    const double sink = options_.sink_logits.empty() ? kNone : options_.sink_logits[q_head_];
    double largest = sink;
    for (double score : scores) largest = std::max(largest, score);
    std::fill(out, out + shape_.head_dim, 0.0f);
    if (largest == kNone) return kNone;

    double sum = std::exp(sink - largest);
    for (double score : scores) sum += std::exp(score - largest);
    const double lse = largest + std::log(sum);
    std::vector<double> total(shape_.head_dim);
    double largest_so_far = kNone;
    for (int64_t token = first; token < end; ++token) {
      const double score = scores[token - first];
      largest_so_far = std::max(largest_so_far, score);
      if (std::exp(score - largest_so_far) < options_.sparse_v_threshold) continue;
      const double weight = std::exp(score - lse);
      const double* v = Row(kv_.v, token);
      for (int c = 0; c < shape_.head_dim; ++c) total[c] += weight * v[c];
    }
    for (int c = 0; c < shape_.head_dim; ++c) out[c] = static_cast<float>(total[c]);
    return lse;
  }

 private:
  const double* Row(const std::vector<double>& values, int64_t token) const {
    return values.data() + (token * shape_.kv_heads + kv_head_) * shape_.head_dim;
  }

  double Score(const float* q, int64_t token) const {
    const double* k = Row(kv_.k, token);
    double dot = 0;
    for (int c = 0; c < shape_.head_dim; ++c) dot += q[c] * k[c];
    const double score = options_.softmax_scale * dot;
    const double cap = options_.soft_cap;
    return cap == 0 ? score : cap * std::tanh(score / cap);
  }

  const AttentionShape& shape_;
  const AttentionOptions& options_;
  const DecodedKv& kv_;
  const int kv_head_;
  const int q_head_;
};

}  // namespace

absl::Status DecodeAttention(const AttentionShape& shape, const AttentionOptions& options,
                             const SequenceKv& sequence, const AttentionQueries& queries) {
  TURBOKV_RETURN_IF_ERROR(ValidateAttention(shape, options, sequence, queries));
  DecodedKv kv;
  for (size_t i = 0; i < sequence.pages.size(); ++i) {
    TURBOKV_RETURN_IF_ERROR(AppendPage(shape, i, sequence.pages[i], &kv));
  }
  AppendTail(shape, sequence.tail, &kv);

  for (size_t i = 0; i < queries.positions.size(); ++i) {
    const auto [first, end] = VisibleTokens(options, sequence, kv.tokens, queries.positions[i]);
    for (int head = 0; head < shape.q_heads; ++head) {
      const size_t row = i * shape.q_heads + head;
      const HeadAttention attention(shape, options, kv, head);
      const double lse = attention.Attend(queries.q + row * shape.head_dim, first, end,
                                          queries.out + row * shape.head_dim);
      if (queries.lse != nullptr) queries.lse[row] = static_cast<float>(lse);
    }
  }
  return absl::OkStatus();
}

}  // namespace turbokv::reference
