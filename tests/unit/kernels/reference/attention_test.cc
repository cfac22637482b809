#include "kernels/reference/attention.h"

#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/kernels/reference/test_values.h"

namespace turbokv {
namespace {

using testing::Decode;
using testing::Decoded;
using testing::Encode;
using testing::Gaussian;
using ::testing::HasSubstr;
using testing::ShapeFor;
using testing::TestKv;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A sequence of pages of several codecs, one of them short, and a tail; and all of it as plain
// rows.
class Sequence {
 public:
  explicit Sequence(const AttentionShape& shape) : shape_(shape) {
    AddPage(Codec::kTurbo3, Codec::kInt4, 128);
    AddPage(Codec::kQ8_0, Codec::kTurbo2, 128);
    AddPage(Codec::kInt5, Codec::kFp8E4m3, 50);
    AddPage(Codec::kBf16, Codec::kQ4_0, 128);
    tail_ = std::make_unique<TestKv>(ValueType::kBf16, 77, shape.kv_heads, shape.head_dim,
                                     Gaussian(999));
    for (int t = 0; t < 77; ++t) {
      for (int h = 0; h < shape.kv_heads; ++h) {
        for (int c = 0; c < shape.head_dim; ++c) {
          k_.push_back(static_cast<float>(tail_->Get({PageTensor::kK, t, h, c})));
          v_.push_back(static_cast<float>(tail_->Get({PageTensor::kV, t, h, c})));
        }
      }
    }
  }

  SequenceKv View(int64_t first_position) const { return {spans_, first_position, tail_->View()}; }
  int64_t tokens() const { return static_cast<int64_t>(k_.size()) / RowValues(); }
  double k(int64_t token, int head, int c) const { return k_[Index(token, head, c)]; }
  double v(int64_t token, int head, int c) const { return v_[Index(token, head, c)]; }

 private:
  int RowValues() const { return shape_.kv_heads * shape_.head_dim; }
  size_t Index(int64_t token, int head, int c) const {
    return static_cast<size_t>(token * RowValues() + head * shape_.head_dim + c);
  }

  void AddPage(Codec k, Codec v, int tokens) {
    const TestKv kv(ValueType::kFp32, tokens, shape_.kv_heads, shape_.head_dim,
                    Gaussian(static_cast<uint32_t>(pages_.size()) + 7));
    pages_.push_back(std::make_unique<std::vector<uint8_t>>(Encode(ShapeFor(k, v, kv), kv)));
    spans_.push_back(*pages_.back());
    const Decoded decoded = Decode(*pages_.back());
    k_.insert(k_.end(), decoded.k.begin(), decoded.k.end());
    v_.insert(v_.end(), decoded.v.begin(), decoded.v.end());
  }

  AttentionShape shape_;
  std::vector<std::unique_ptr<std::vector<uint8_t>>> pages_;
  std::vector<absl::Span<const uint8_t>> spans_;
  std::unique_ptr<TestKv> tail_;
  std::vector<float> k_, v_;
};

struct Result {
  std::vector<float> out, lse;
};

std::vector<float> RandomQueries(const AttentionShape& shape, size_t count) {
  std::mt19937_64 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> q(count * shape.q_heads * shape.head_dim);
  for (float& value : q) value = normal(random);
  return q;
}

absl::StatusOr<Result> Attend(const AttentionShape& shape, const AttentionOptions& options,
                              const SequenceKv& sequence, absl::Span<const int64_t> positions) {
  const std::vector<float> q = RandomQueries(shape, positions.size());
  Result result{std::vector<float>(q.size(), -777.0f),
                std::vector<float>(positions.size() * shape.q_heads, -777.0f)};
  const absl::Status status = reference::DecodeAttention(
      shape, options, sequence, {positions, q.data(), result.out.data(), result.lse.data()});
  if (!status.ok()) return status;
  return result;
}

// The formulas of kernels/attention.h, literally.
Result Naive(const AttentionShape& shape, const AttentionOptions& options, const Sequence& sequence,
             int64_t first_position, absl::Span<const int64_t> positions) {
  const std::vector<float> q = RandomQueries(shape, positions.size());
  Result result;
  for (size_t i = 0; i < positions.size(); ++i) {
    for (int h = 0; h < shape.q_heads; ++h) {
      const int kv_head = h * shape.kv_heads / shape.q_heads;
      const float* query = q.data() + (i * shape.q_heads + h) * shape.head_dim;
      double sum = options.sink_logits.empty() ? 0 : std::exp(double{options.sink_logits[h]});
      std::vector<double> out(shape.head_dim);
      for (int64_t j = 0; j < sequence.tokens(); ++j) {
        const int64_t distance = positions[i] - (first_position + j);
        if (distance < 0) continue;
        if (options.window_tokens > 0 && distance >= options.window_tokens) continue;
        double score = 0;
        for (int c = 0; c < shape.head_dim; ++c) score += query[c] * sequence.k(j, kv_head, c);
        score *= options.softmax_scale;
        if (options.soft_cap > 0) score = options.soft_cap * std::tanh(score / options.soft_cap);
        sum += std::exp(score);
        for (int c = 0; c < shape.head_dim; ++c) {
          out[c] += std::exp(score) * sequence.v(j, kv_head, c);
        }
      }
      result.lse.push_back(static_cast<float>(std::log(sum)));
      for (double value : out) {
        result.out.push_back(static_cast<float>(sum == 0 ? 0 : value / sum));
      }
    }
  }
  return result;
}

void ExpectNear(const Result& actual, const Result& expected, double tolerance = 1e-5) {
  ASSERT_EQ(actual.out.size(), expected.out.size());
  for (size_t i = 0; i < actual.out.size(); ++i) {
    ASSERT_NEAR(actual.out[i], expected.out[i], tolerance) << i;
  }
  for (size_t i = 0; i < actual.lse.size(); ++i) {
    if (std::isinf(expected.lse[i])) {
      ASSERT_EQ(actual.lse[i], expected.lse[i]) << i;
    } else {
      ASSERT_NEAR(actual.lse[i], expected.lse[i], tolerance) << i;
    }
  }
}

TEST(AttentionTest, EqualsTheFormula) {
  const int64_t first_position = 1000;
  const std::vector<std::vector<int64_t>> position_sets = {
      {1000 + 510}, {1000, 1001, 1127, 1128, 1305, 1306, 1434, 1510, 9999}, {999, 0}};
  for (const AttentionShape& shape :
       {AttentionShape{1, 1, 128}, AttentionShape{8, 2, 64}, AttentionShape{3, 3, 80}}) {
    const Sequence sequence(shape);
    std::vector<float> sinks(shape.q_heads);
    for (int h = 0; h < shape.q_heads; ++h) sinks[h] = 0.5f * h - 1;
    for (const std::vector<int64_t>& positions : position_sets) {
      AttentionOptions options;
      options.softmax_scale = 0.11f;
      for (int variant = 0; variant < 8; ++variant) {
        options.soft_cap = variant & 1 ? 2.0f : 0.0f;
        options.window_tokens = variant & 2 ? 200 : 0;
        options.sink_logits =
            variant & 4 ? absl::Span<const float>(sinks) : absl::Span<const float>();
        const absl::StatusOr<Result> result =
            Attend(shape, options, sequence.View(first_position), positions);
        ASSERT_TRUE(result.ok()) << result.status();
        ExpectNear(*result, Naive(shape, options, sequence, first_position, positions));
      }
    }
  }
}

TEST(AttentionTest, NothingVisibleIsZero) {
  const AttentionShape shape{2, 1, 64};
  const SequenceKv empty{};
  const std::vector<int64_t> positions = {5};
  const absl::StatusOr<Result> none = Attend(shape, {}, empty, positions);
  ASSERT_TRUE(none.ok()) << none.status();
  for (float value : none->out) EXPECT_EQ(value, 0.0f);
  for (float value : none->lse) EXPECT_EQ(value, -kInfinity);

  const std::vector<float> sinks = {1.5f, -2.0f};
  AttentionOptions options;
  options.sink_logits = sinks;
  const absl::StatusOr<Result> sink_only = Attend(shape, options, empty, positions);
  ASSERT_TRUE(sink_only.ok());
  EXPECT_THAT(sink_only->lse, ::testing::ElementsAreArray(sinks));
}

TEST(AttentionTest, SkippingSmallWeightsChangesLittleAndOnlyV) {
  const AttentionShape shape{4, 2, 128};
  const Sequence sequence(shape);
  const std::vector<int64_t> positions = {400};
  AttentionOptions options;
  options.softmax_scale = 1.0f;  // sharp
  const absl::StatusOr<Result> exact = Attend(shape, options, sequence.View(0), positions);
  options.sparse_v_threshold = 1e-6f;
  const absl::StatusOr<Result> sparse = Attend(shape, options, sequence.View(0), positions);
  ASSERT_TRUE(exact.ok() && sparse.ok());
  EXPECT_EQ(exact->lse, sparse->lse);
  EXPECT_NE(exact->out, sparse->out);
  ExpectNear(*sparse, *exact, 1e-3);
  options.sparse_v_threshold = 1.0f;  // only running maxima are added
  const absl::StatusOr<Result> maxima = Attend(shape, options, sequence.View(0), positions);
  ASSERT_TRUE(maxima.ok());
  EXPECT_EQ(exact->lse, maxima->lse);
}

TEST(AttentionTest, BadArgumentsAreRefusedByName) {
  const AttentionShape good{4, 2, 64};
  const Sequence sequence(good);
  const std::vector<int64_t> one = {400}, seventeen(17, 400);
  const auto message = [&](const AttentionShape& shape, const AttentionOptions& options,
                           absl::Span<const int64_t> positions) {
    const absl::Status status = Attend(shape, options, sequence.View(0), positions).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message({4, 2, 65}, {}, one), HasSubstr("head_dim 65"));
  EXPECT_THAT(message({4, 0, 64}, {}, one), HasSubstr("kv_heads 0"));
  EXPECT_THAT(message({5, 2, 64}, {}, one), HasSubstr("q_heads 5"));
  EXPECT_THAT(message({4, 4, 64}, {}, one), HasSubstr("page 0 has 2 KV heads"));
  EXPECT_THAT(message({4, 2, 128}, {}, one), HasSubstr("page 0"));
  EXPECT_THAT(message(good, {}, seventeen), HasSubstr("queries 17"));
  EXPECT_THAT(message(good, {}, {}), HasSubstr("queries 0"));
  AttentionOptions options;
  const std::vector<float> sinks(3);
  options.sink_logits = sinks;
  EXPECT_THAT(message(good, options, one), HasSubstr("sink_logits"));
  options = {};
  options.window_tokens = -1;
  EXPECT_THAT(message(good, options, one), HasSubstr("window_tokens"));
  options = {};
  options.soft_cap = -1;
  EXPECT_THAT(message(good, options, one), HasSubstr("soft_cap"));
}

TEST(AttentionTest, DamagedPagesAreRefused) {
  const AttentionShape shape{1, 1, 64};
  const TestKv kv(ValueType::kFp32, 128, 1, 64, Gaussian(1));
  std::vector<uint8_t> page = Encode(ShapeFor(Codec::kInt4, Codec::kInt4, kv), kv);
  page[0] ^= 1;
  const std::vector<absl::Span<const uint8_t>> pages = {page};
  SequenceKv sequence;
  sequence.pages = pages;
  const std::vector<int64_t> positions = {5};
  EXPECT_THAT(Attend(shape, {}, sequence, positions).status().message(), HasSubstr("page 0"));
}

}  // namespace
}  // namespace turbokv
