// cpu::DecodeAttention against reference::DecodeAttention.
#include "kernels/cpu/attention.h"

#include <cmath>
#include <limits>
#include <random>

#include "gtest/gtest.h"
#include "kernels/reference/attention.h"
#include "kernels/reference/codec.h"
#include "tests/unit/kernels/cpu/for_each_simd_target.h"
#include "tests/unit/kernels/cpu/test_values.h"

namespace turbokv {
namespace {

using testing::GaussianValues;
using testing::ImplementedCodecs;
using testing::KvOrder;
using testing::LayoutOf;
using testing::TestKv;

struct PageSpec {
  Codec k = Codec::kInt5;
  Codec v = Codec::kInt5;
  int tokens = kPageTokens;
  bool k_mean = true;
};

// One sequence and its queries.
struct Case {
  AttentionShape shape{4, 2, 128};
  AttentionOptions options;
  std::vector<PageSpec> pages;
  int tail_tokens = 0;
  ValueType type = ValueType::kBf16;
  KvOrder order = KvOrder::kNhd;
  int64_t first_position = 0;
  std::vector<int64_t> positions;  // empty: one query at the last token
  float value_scale = 1.0f;
  uint32_t seed = 1;
};

struct Results {
  std::vector<float> out;
  std::vector<float> lse;
};

class Harness {
 public:
  explicit Harness(Case test_case)
      : case_(std::move(test_case)), tail_(MakeKv(case_.tail_tokens, case_.seed + 1000)) {
    case_.options.softmax_scale = 1.0f / std::sqrt(static_cast<float>(case_.shape.head_dim));
    int64_t tokens = case_.tail_tokens;
    for (const PageSpec& spec : case_.pages) {
      const PageLayout layout =
          LayoutOf(case_.shape.kv_heads, case_.shape.head_dim, spec.k, spec.v, spec.k_mean);
      pages_.emplace_back(layout.page_bytes);
      const TestKv kv = MakeKv(spec.tokens, case_.seed++);
      EXPECT_TRUE(reference::EncodePage(layout, {}, kv.view(), absl::MakeSpan(pages_.back())).ok());
      tokens += spec.tokens;
    }
    for (const auto& page : pages_) spans_.push_back(page);
    if (case_.positions.empty()) case_.positions = {case_.first_position + tokens - 1};
    std::mt19937 rng(case_.seed + 77);
    std::normal_distribution<float> normal;
    q_.resize(case_.positions.size() * case_.shape.q_heads * case_.shape.head_dim);
    for (float& value : q_) value = 1.5f * normal(rng);
  }

  Results Run(ThreadPool* pool, bool reference) const {
    Results results;
    results.out.assign(q_.size(), 123.0f);
    results.lse.assign(case_.positions.size() * case_.shape.q_heads, 123.0f);
    const SequenceKv sequence{spans_, case_.first_position, tail_.view()};
    const AttentionQueries queries{case_.positions, q_.data(), results.out.data(),
                                   results.lse.data()};
    const absl::Status status =
        reference ? reference::DecodeAttention(case_.shape, case_.options, sequence, queries)
                  : cpu::DecodeAttention(case_.shape, case_.options, sequence, queries, pool);
    EXPECT_TRUE(status.ok()) << status;
    return results;
  }

  // Largest error of a row's output relative to the norm of that row.
  double Compare(const Results& actual, const Results& expected) const {
    double worst = 0;
    const int dim = case_.shape.head_dim;
    for (size_t row = 0; row < expected.lse.size(); ++row) {
      double error = 0, norm = 0;
      for (int c = 0; c < dim; ++c) {
        const double a = actual.out[row * dim + c], e = expected.out[row * dim + c];
        error += (a - e) * (a - e);
        norm += e * e;
      }
      if (norm == 0) {
        EXPECT_EQ(error, 0);
      } else {
        worst = std::max(worst, std::sqrt(error / norm));
      }
      if (std::isinf(expected.lse[row])) {
        EXPECT_EQ(actual.lse[row], expected.lse[row]);
      } else {
        EXPECT_NEAR(actual.lse[row], expected.lse[row], 1e-5 * (1 + std::abs(expected.lse[row])));
      }
    }
    return worst;
  }

  // Float rounding for one row of queries a KV head; the 16-bit weights of turboN for more.
  double Tolerance() const {
    const bool one_row = case_.positions.size() == 1 && case_.shape.q_heads == case_.shape.kv_heads;
    return one_row ? 1e-5 : 1e-4;
  }

  void ExpectMatch() const { ExpectMatch(Tolerance()); }
  void ExpectMatch(double tolerance, ThreadPool* pool = nullptr) const {
    const double error = Compare(Run(pool, false), Run(nullptr, true));
    EXPECT_LE(error, tolerance);
  }

 private:
  TestKv MakeKv(int tokens, uint32_t seed) const {
    const TestKv::ValueFn gaussian = GaussianValues(seed);
    const float scale = case_.value_scale;
    return TestKv(case_.type, case_.order, tokens, case_.shape.kv_heads, case_.shape.head_dim,
                  [&](bool is_v, int token, int head, int c) {
                    return scale * gaussian(is_v, token, head, c);
                  });
  }

  Case case_;
  TestKv tail_;
  std::vector<std::vector<uint8_t>> pages_;
  std::vector<absl::Span<const uint8_t>> spans_;
  std::vector<float> q_;
};

TEST(DecodeAttentionTest, MatchesTheReferenceForEveryPairOfCodecs) {
  for (Codec k : ImplementedCodecs()) {
    for (Codec v : ImplementedCodecs()) {
      SCOPED_TRACE(absl::StrCat(CodecName(k), "/", CodecName(v)));
      Harness({.pages = {{k, v}, {k, v, 40}}, .tail_tokens = 3}).ExpectMatch();
    }
  }
}

TEST(DecodeAttentionTest, MatchesTheReferenceForEveryHeadDim) {
  for (Codec codec : ImplementedCodecs()) {
    for (int head_dim : kHeadDims) {
      SCOPED_TRACE(absl::StrCat(CodecName(codec), " head_dim ", head_dim));
      Harness({.shape = {2, 1, head_dim},
               .pages = {{codec, codec, 128}, {codec, codec, 77, false}},
               .tail_tokens = 5,
               .type = ValueType::kFp32})
          .ExpectMatch();
    }
  }
}

TEST(DecodeAttentionTest, MatchesTheReferenceForEveryGroupSizeAndQueryCount) {
  for (int group : {1, 2, 4, 5, 7, 8, 16}) {
    for (int queries : {1, 2, 3, 8, 16}) {
      SCOPED_TRACE(absl::StrCat("group ", group, ", queries ", queries));
      std::vector<int64_t> positions;
      for (int i = 0; i < queries; ++i) positions.push_back(300 - 17 * i);
      Harness({.shape = {2 * group, 2, 64},
               .pages = {{Codec::kTurbo3, Codec::kTurbo4}, {Codec::kInt5, Codec::kQ8_0}},
               .tail_tokens = 60,
               .order = KvOrder::kHnd,
               .positions = positions})
          .ExpectMatch();
    }
  }
}

TEST(DecodeAttentionTest, MixesCodecsPartialPagesAndTails) {
  for (int tail : {0, 1, 31, 127, 128, 129, 255}) {
    for (ValueType type : {ValueType::kBf16, ValueType::kFp16, ValueType::kFp32}) {
      SCOPED_TRACE(absl::StrCat("tail ", tail));
      Harness({.pages = {{Codec::kTurbo2, Codec::kBf16, 128},
                         {Codec::kFp8E4m3, Codec::kInt6, 31, false},
                         {Codec::kInt8, Codec::kTurbo3, 33},
                         {Codec::kQ4_0, Codec::kQ8_0, 1},
                         {Codec::kFp16, Codec::kInt4, 128}},
               .tail_tokens = tail,
               .type = type,
               .first_position = 1000})
          .ExpectMatch();
    }
  }
}

TEST(DecodeAttentionTest, MasksByPositionAndWindow) {
  for (int64_t window : {0, 1, 5, 128, 200, 100000}) {
    SCOPED_TRACE(absl::StrCat("window ", window));
    Case test_case{
        .pages = {{Codec::kTurbo3, Codec::kInt5},
                  {Codec::kInt5, Codec::kBf16},
                  {Codec::kQ8_0, Codec::kTurbo4, 100}},
        .tail_tokens = 50,
        .first_position = 40,
        .positions = {0, 39, 40, 41, 167, 168, 300, 395, 396, 430, 445, 446, 500, 5000,
                      std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()}};
    test_case.options.window_tokens = window;
    Harness(test_case).ExpectMatch();
  }
}

TEST(DecodeAttentionTest, CapsScoresAndCountsSinks) {
  const std::vector<float> sinks = {0.5f, -3.0f, 4.0f, 20.0f};
  for (float cap : {0.0f, 0.5f, 5.0f, 50.0f}) {
    for (bool with_sinks : {false, true}) {
      Case test_case{.pages = {{Codec::kTurbo4, Codec::kTurbo3}, {Codec::kInt6, Codec::kFp16, 9}},
                     .tail_tokens = 20,
                     .positions = {3, 150, 156}};
      test_case.options.soft_cap = cap;
      if (with_sinks) test_case.options.sink_logits = sinks;
      Harness(test_case).ExpectMatch();
    }
  }
}

TEST(DecodeAttentionTest, AnswersForAnEmptySequence) {
  const std::vector<float> sinks = {1.0f, 2.0f, 3.0f, 4.0f};
  Case test_case{.positions = {0, 7}};
  Harness(test_case).ExpectMatch();
  test_case.options.sink_logits = sinks;
  Harness(test_case).ExpectMatch();
}

TEST(DecodeAttentionTest, SkipsValuesOfNegligibleWeight) {
  Case test_case{.pages = {{Codec::kTurbo3, Codec::kTurbo3}, {Codec::kInt5, Codec::kInt5}},
                 .tail_tokens = 100,
                 .value_scale = 3.0f};
  test_case.options.sparse_v_threshold = 1e-6f;
  // Either implementation may keep what the other one drops: 356 tokens of 1e-6 at most.
  Harness(test_case).ExpectMatch(5e-4);
  test_case.options.sparse_v_threshold = 0.0f;
  const Results exact = Harness(test_case).Run(nullptr, false);
  test_case.options.sparse_v_threshold = 0.1f;
  const Harness sparse(test_case);
  const Results skipped = sparse.Run(nullptr, false);
  EXPECT_EQ(exact.lse, skipped.lse);
  EXPECT_NE(exact.out, skipped.out);
}

// Flat, ordinary and peaked attention over many pages: where turboN's products are rounded to 16
// bits, and where they must not be.
TEST(DecodeAttentionTest, RoundsWeightsOnlyWhereItDoesNotShow) {
  for (Codec codec : {Codec::kTurbo2, Codec::kTurbo3, Codec::kTurbo4}) {
    for (float scale : {0.0f, 0.05f, 0.5f, 1.0f, 2.0f, 4.0f, 10.0f}) {
      for (int head_dim : {64, 128, 256}) {
        SCOPED_TRACE(absl::StrCat(CodecName(codec), " scale ", scale, " head_dim ", head_dim));
        Case test_case{.shape = {4, 1, head_dim}, .value_scale = scale};
        for (int i = 0; i < 12; ++i) test_case.pages.push_back({codec, codec, 128 - 9 * (i % 3)});
        Harness(test_case).ExpectMatch(1e-4);
      }
    }
  }
}

TEST(DecodeAttentionTest, HandlesPagesWithExponents) {
  for (float scale : {1e-7f, 1e-4f, 1e5f, 1e6f}) {
    SCOPED_TRACE(scale);
    for (Codec codec : {Codec::kTurbo3, Codec::kInt5, Codec::kQ8_0, Codec::kFp16}) {
      Case test_case{.pages = {{codec, codec}, {Codec::kInt6, codec, 50}},
                     .type = ValueType::kFp32,
                     .value_scale = scale};
      Harness(test_case).ExpectMatch(1e-4);
    }
  }
}

TEST(DecodeAttentionTest, EverySimdTargetMatchesTheReference) {
  testing::ForEachSimdTarget([] {
    for (Codec codec : ImplementedCodecs()) {
      SCOPED_TRACE(CodecName(codec));
      for (int group : {1, 3}) {
        Harness({.shape = {group, 1, 192},
                 .pages = {{codec, codec}, {codec, codec, 90}},
                 .tail_tokens = 17})
            .ExpectMatch();
      }
    }
  });
}

TEST(DecodeAttentionTest, ThreadsGiveTheSameAnswerEveryTime) {
  ThreadPool pool(5);
  Case test_case{.tail_tokens = 130};
  for (int i = 0; i < 23; ++i) {
    test_case.pages.push_back({i % 3 ? Codec::kInt5 : Codec::kTurbo3, Codec::kInt5});
  }
  const Harness harness(test_case);
  harness.ExpectMatch(1e-4, &pool);
  const Results first = harness.Run(&pool, false);
  for (int i = 0; i < 5; ++i) {
    const Results again = harness.Run(&pool, false);
    EXPECT_EQ(first.out, again.out);
    EXPECT_EQ(first.lse, again.lse);
  }
}

// The same status as the reference for arguments that are refused.
TEST(DecodeAttentionTest, RefusesWhatTheReferenceRefuses) {
  const PageLayout layout = LayoutOf(2, 64, Codec::kInt5, Codec::kInt5, true);
  const TestKv kv(ValueType::kBf16, KvOrder::kNhd, 128, 2, 64, GaussianValues(1));
  std::vector<uint8_t> page(layout.page_bytes);
  ASSERT_TRUE(reference::EncodePage(layout, {}, kv.view(), absl::MakeSpan(page)).ok());
  std::vector<float> q(16 * 4 * 64), out(q.size());
  const std::vector<float> sinks(3);
  const std::vector<int64_t> positions(17, 0);

  const auto expect_same = [&](const AttentionShape& shape, const AttentionOptions& options,
                               absl::Span<const uint8_t> bytes, size_t query_count,
                               const float* q_data, int64_t first_position) {
    const absl::Span<const uint8_t> pages[] = {bytes};
    const SequenceKv sequence{pages, first_position, {}};
    const AttentionQueries queries{absl::MakeConstSpan(positions).subspan(0, query_count), q_data,
                                   out.data(), nullptr};
    const absl::Status expected = reference::DecodeAttention(shape, options, sequence, queries);
    EXPECT_FALSE(expected.ok());
    EXPECT_EQ(cpu::DecodeAttention(shape, options, sequence, queries), expected);
  };
  const AttentionShape shape{4, 2, 64};
  const AttentionOptions options;
  expect_same({4, 2, 63}, options, page, 1, q.data(), 0);
  expect_same({4, 2, 128}, options, page, 1, q.data(), 0);
  expect_same({4, 0, 64}, options, page, 1, q.data(), 0);
  expect_same({5, 2, 64}, options, page, 1, q.data(), 0);
  expect_same({4, 1, 64}, options, page, 1, q.data(), 0);
  expect_same(shape, options, page, 0, q.data(), 0);
  expect_same(shape, options, page, 17, q.data(), 0);
  expect_same(shape, options, page, 1, nullptr, 0);
  expect_same(shape, options, page, 1, q.data(), -1);
  expect_same(shape, options, absl::MakeConstSpan(page).subspan(0, 500), 1, q.data(), 0);
  expect_same(shape, options, absl::MakeConstSpan(page).subspan(8), 1, q.data(), 0);
  AttentionOptions bad = options;
  bad.soft_cap = -1;
  expect_same(shape, bad, page, 1, q.data(), 0);
  bad = options;
  bad.window_tokens = -1;
  expect_same(shape, bad, page, 1, q.data(), 0);
  bad = options;
  bad.sparse_v_threshold = 2;
  expect_same(shape, bad, page, 1, q.data(), 0);
  bad = options;
  bad.softmax_scale = std::numeric_limits<float>::quiet_NaN();
  expect_same(shape, bad, page, 1, q.data(), 0);
  bad = options;
  bad.sink_logits = sinks;
  expect_same(shape, bad, page, 1, q.data(), 0);
}

}  // namespace
}  // namespace turbokv
