// DecodeAttention on a GPU against attention in double on the same values.
#include "kernels/cuda/attention/attention.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/unit/kernels/cuda/attention_harness.h"

namespace turbokv::cuda::testing {
namespace {

using ::turbokv::testing::ImplementedCodecs;

class AttentionTest : public GpuTest {};

std::string Describe(const PageShape& pool) {
  return absl::StrCat(CodecName(pool.k_codec), "/", CodecName(pool.v_codec),
                      pool.k_mean ? " with K mean" : "");
}

// The pairs that are compiled ahead.
std::vector<PageShape> UsualPools() {
  std::vector<PageShape> pools;
  for (const auto& [k, v] : {std::pair{Codec::kInt5, Codec::kInt5},
                             {Codec::kInt6, Codec::kInt6},
                             {Codec::kTurbo4, Codec::kTurbo3},
                             {Codec::kTurbo3, Codec::kTurbo3},
                             {Codec::kBf16, Codec::kBf16}}) {
    pools.push_back(OnePool(k, v)[0]);
  }
  return pools;
}

TEST_F(AttentionTest, MatchesForUsualPairsAndEveryHeadDim) {
  for (const PageShape& pool : UsualPools()) {
    for (int head_dim : {64, 128, 256}) {
      for (bool k_mean : {false, true}) {
        SCOPED_TRACE(absl::StrCat(Describe(pool), " head_dim ", head_dim, " k_mean ", k_mean));
        AttentionHarness({.shape = {8, 2, head_dim},
                          .pools = OnePool(pool.k_codec, pool.v_codec, k_mean),
                          .sequences = {{5, 77}, {1, 0}, {9, 255}}})
            .ExpectMatch();
      }
    }
  }
}

TEST_F(AttentionTest, MatchesForEveryGroupSizeAndQueryCount) {
  for (const PageShape& pool : UsualPools()) {
    for (int group : {1, 2, 4, 5, 7, 8, 16}) {
      for (int queries : {1, 2, 3, 8}) {
        SCOPED_TRACE(absl::StrCat(Describe(pool), " group ", group, " queries ", queries));
        AttentionHarness({.shape = {2 * group, 2, 128},
                          .pools = {pool},
                          .sequences = {{2, 60}, {3, 1}, {2, 0}},
                          .queries = queries})
            .ExpectMatch();
      }
    }
  }
}

TEST_F(AttentionTest, MatchesForEveryHeadCount) {
  for (int kv_heads : {1, 2, 3, 5, 8, 16, 33, 64}) {
    SCOPED_TRACE(kv_heads);
    AttentionHarness({.shape = {2 * kv_heads, kv_heads, 64},
                      .pools = OnePool(Codec::kTurbo3, Codec::kTurbo3),
                      .sequences = {{2, 3}, {1, 130}}})
        .ExpectMatch();
  }
}

TEST_F(AttentionTest, MatchesForEveryPackedLengthAndTail) {
  std::vector<SequenceSpec> sequences;
  for (int pages : {0, 1, 2, 10, 37}) {
    for (int tail : {0, 1, 127, 128, 255}) sequences.push_back({pages, tail});
  }
  for (const PageShape& pool : UsualPools()) {
    for (ValueType tail_type : {ValueType::kBf16, ValueType::kFp16}) {
      SCOPED_TRACE(Describe(pool));
      AttentionHarness(
          {.shape = {8, 1, 128}, .pools = {pool}, .sequences = sequences, .tail_type = tail_type})
          .ExpectMatch();
    }
  }
}

TEST_F(AttentionTest, MasksByWindowAndPosition) {
  for (int64_t window : {0, 1, 100, 128, 129, 300, 100000}) {
    for (const PageShape& pool : UsualPools()) {
      SCOPED_TRACE(absl::StrCat(Describe(pool), " window ", window));
      AttentionCase test_case{.shape = {4, 2, 128},
                              .pools = {pool},
                              .sequences = {{6, 100}, {2, 0}, {0, 5}},
                              .queries = 3,
                              .query_positions = {0, 500, 867, 100, 255, 1000, 2, 3, 4}};
      test_case.options.window_tokens = window;
      AttentionHarness(test_case).ExpectMatch();
      test_case.query_positions.clear();
      AttentionHarness(test_case).ExpectMatch();
    }
  }
}

TEST_F(AttentionTest, CapsScoresAndCountsSinks) {
  const std::vector<float> sinks = {0.5f, -3.0f, 4.0f, 20.0f};
  for (float cap : {0.0f, 5.0f, 50.0f, 1e5f}) {
    for (bool with_sinks : {false, true}) {
      for (const PageShape& pool : UsualPools()) {
        SCOPED_TRACE(absl::StrCat(Describe(pool), " cap ", cap, " sinks ", with_sinks));
        AttentionCase test_case{
            .shape = {4, 2, 128}, .pools = {pool}, .sequences = {{4, 20}, {0, 0}, {0, 9}}};
        test_case.options.soft_cap = cap;
        if (with_sinks) test_case.options.sink_logits = sinks;
        AttentionHarness(test_case).ExpectMatch();
      }
    }
  }
}

TEST_F(AttentionTest, SkipsValuesOfNegligibleWeight) {
  for (const PageShape& pool : UsualPools()) {
    SCOPED_TRACE(Describe(pool));
    AttentionCase test_case{.shape = {4, 2, 128},
                            .pools = {pool},
                            .sequences = {{30, 100}, {3, 0}},
                            .query_scale = 6.0f};
    const AttentionResult exact = AttentionHarness(test_case).Run();
    test_case.options.sparse_v_threshold = 1e-7f;
    AttentionHarness barely(test_case);
    barely.ExpectNear(barely.Run(), 1e-3, Centroids::kTable);
    test_case.options.sparse_v_threshold = 0.2f;
    const AttentionResult skipped = AttentionHarness(test_case).Run();
    EXPECT_EQ(exact.lse, skipped.lse);
    EXPECT_NE(exact.out, skipped.out);
  }
}

// Most pages hold nothing that counts, and their V is not even fetched.
TEST_F(AttentionTest, SkipsWholePages) {
  for (int group : {4, 8, 12}) {
    for (const PageShape& pool : UsualPools()) {
      SCOPED_TRACE(absl::StrCat(Describe(pool), " group ", group));
      AttentionCase test_case{.shape = {group, 1, 128},
                              .pools = {pool},
                              .sequences = {{40, 0}, {25, 10}},
                              .query_scale = 8.0f};
      test_case.options.sparse_v_threshold = 1e-5f;
      AttentionHarness harness(test_case);
      harness.ExpectNear(harness.Run(), 5e-3, Centroids::kTable);
    }
  }
}

// One token a page towers above the others, in K and in V: its weight is the largest that there is,
// at scores where a float's spacing is far from small.
TEST_F(AttentionTest, KeepsTheLargestWeightAtLargeScores) {
  for (float scale : {15.0f, 30.0f, 60.0f}) {
    for (const PageShape& pool : UsualPools()) {
      for (uint32_t seed : {1u, 2u, 3u}) {
        SCOPED_TRACE(absl::StrCat(Describe(pool), " scale ", scale, " seed ", seed));
        const auto gaussian = ::turbokv::testing::GaussianValues(seed);
        AttentionHarness harness({.shape = {8, 1, 128},
                                  .pools = {pool},
                                  .sequences = {{6, 0}, {2, 40}},
                                  .query_scale = scale,
                                  .seed = seed,
                                  .values = [&](bool is_v, int token, int head, int c) {
                                    const float value = gaussian(is_v, token, head, c);
                                    return token % kPageTokens == 77 ? 4.0f * value : value;
                                  }});
        harness.ExpectMatch();
      }
    }
  }
}

TEST_F(AttentionTest, PassesOnNotANumber) {
  AttentionHarness harness({.pools = OnePool(Codec::kTurbo3, Codec::kTurbo3, false),
                            .sequences = {{2, 0}},
                            .query_scale = std::numeric_limits<float>::quiet_NaN()});
  for (float value : harness.Run().out) EXPECT_TRUE(std::isnan(value));
}

TEST_F(AttentionTest, MixesPools) {
  AttentionCase test_case{
      .shape = {16, 2, 128},
      .pools = {OnePool(Codec::kTurbo3, Codec::kTurbo3)[0], OnePool(Codec::kBf16, Codec::kBf16)[0],
                OnePool(Codec::kInt5, Codec::kInt5, false)[0]},
      .sequences = {{13, 50}, {1, 0}, {0, 3}, {70, 255}, {6, 1}},
      .queries = 2};
  AttentionHarness(test_case).ExpectMatch();
  test_case.options.window_tokens = 500;
  AttentionHarness(test_case).ExpectMatch();
}

TEST_F(AttentionTest, TakesAndGivesEveryType) {
  for (ValueType type : {ValueType::kBf16, ValueType::kFp16, ValueType::kFp32}) {
    AttentionHarness harness({.pools = OnePool(Codec::kTurbo3, Codec::kTurbo3),
                              .sequences = {{4, 20}, {7, 130}},
                              .value_type = type});
    const double unit = type == ValueType::kBf16 ? 4e-3 : type == ValueType::kFp16 ? 8e-4 : 3e-4;
    harness.ExpectNear(harness.Run(), unit, Centroids::kTable);
  }
}

// What the integer tables cost against the public centroids.
TEST_F(AttentionTest, StaysNearThePublicCentroids) {
  for (const auto& [codec, tolerance] :
       {std::pair{Codec::kTurbo2, 2e-3}, {Codec::kTurbo3, 7e-3}, {Codec::kTurbo4, 1.3e-2}}) {
    SCOPED_TRACE(CodecName(codec));
    AttentionHarness harness(
        {.shape = {8, 1, 128}, .pools = OnePool(codec, codec), .sequences = {{20, 0}, {3, 40}}});
    harness.ExpectNear(harness.Run(), tolerance, Centroids::kPublic);
  }
}

TEST_F(AttentionTest, HandlesExponentsAndExtremeScales) {
  for (float scale : {1e-7f, 1e-4f, 1e4f, 1e6f}) {
    for (const PageShape& pool : UsualPools()) {
      SCOPED_TRACE(absl::StrCat(Describe(pool), " scale ", scale));
      AttentionHarness({.pools = {pool},
                        .sequences = {{3, 0}},
                        .source_type = ValueType::kFp32,
                        .value_scale = scale,
                        .query_scale = 1.0f / scale})
          .ExpectMatch();
    }
  }
}

TEST_F(AttentionTest, HandlesAdversarialValues) {
  for (const auto& values : ::turbokv::testing::AdversarialValues()) {
    // The sums over tokens, and differences of scores, must mean something in float.
    const bool huge = values.name == "huge";
    for (const PageShape& pool : UsualPools()) {
      SCOPED_TRACE(absl::StrCat(Describe(pool), " ", values.name));
      AttentionHarness harness({.shape = {4, 1, 128},
                                .pools = {pool},
                                .sequences = {{2, 30}},
                                .source_type = ValueType::kFp32,
                                .value_scale = huge ? 1e-4f : 1.0f,
                                .query_scale = huge ? 1e-30f : 0.05f,
                                .values = values.value});
      const AttentionResult actual = harness.Run();
      for (float value : actual.out) ASSERT_FALSE(std::isnan(value));
    }
  }
}

// However the work is divided, the answer is the same but for rounding; and always the same.
TEST_F(AttentionTest, DependsOnTheDivisionOnlyByRounding) {
  for (int blocks : {1, 2, 7, 33, 132, 500}) {
    SCOPED_TRACE(blocks);
    AttentionHarness harness({.shape = {16, 2, 128},
                              .pools = OnePool(Codec::kTurbo3, Codec::kTurbo3),
                              .sequences = {{90, 10}, {1, 0}, {0, 0}, {17, 0}, {0, 40}, {5, 5}},
                              .blocks = blocks});
    const AttentionResult first = harness.Run();
    harness.ExpectMatch(first);
    const AttentionResult again = harness.Run();
    EXPECT_EQ(first.out, again.out);
    EXPECT_EQ(first.lse, again.lse);
  }
}

TEST_F(AttentionTest, MixesPoolsUnderEveryDivision) {
  for (int blocks : {1, 5, 40, 300}) {
    SCOPED_TRACE(blocks);
    AttentionHarness({.shape = {8, 2, 128},
                      .pools = {OnePool(Codec::kTurbo3, Codec::kTurbo3)[0],
                                OnePool(Codec::kInt5, Codec::kInt5)[0]},
                      .sequences = {{50, 10}, {1, 0}, {0, 7}, {9, 0}},
                      .queries = 2,
                      .blocks = blocks})
        .ExpectMatch();
  }
}

TEST_F(AttentionTest, ManySequencesOfUnequalLength) {
  std::vector<SequenceSpec> sequences;
  for (int i = 0; i < 300; ++i) sequences.push_back({i % 5 == 0 ? i / 20 : i % 3, i % 7 * 30});
  AttentionHarness({.shape = {4, 1, 64},
                    .pools = OnePool(Codec::kTurbo3, Codec::kTurbo3),
                    .sequences = sequences})
      .ExpectMatch();
}

// A graph captured once sees the lengths and tables that memory holds when it is replayed.
TEST_F(AttentionTest, RunsInAGraphWhoseLengthsChange) {
  AttentionHarness harness({.pools = {OnePool(Codec::kTurbo3, Codec::kTurbo3)[0],
                                      OnePool(Codec::kInt5, Codec::kInt5)[0]},
                            .sequences = {{12, 9}, {8, 200}}});
  const auto attention = DecodeAttention::Create(harness.config());
  ASSERT_TRUE(attention.ok()) << attention.status();
  DeviceBuffer<uint8_t> workspace((*attention)->workspace_bytes());
  AttentionArguments arguments = harness.arguments();
  arguments.workspace = workspace.data();
  const std::vector<int32_t> lengths = harness.packed_tokens().Download();

  cudaStream_t stream;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  harness.packed_tokens().Upload(std::vector<int32_t>{128, 0});
  cudaGraph_t graph;
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  const absl::Status status = (*attention)->Run(arguments, stream);
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_TRUE(status.ok()) << status;
  cudaGraphExec_t executable;
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  const AttentionResult shorter = harness.Download();
  harness.packed_tokens().Upload(lengths);
  ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  const AttentionResult whole = harness.Download();
  harness.ExpectMatch(whole);
  EXPECT_NE(shorter.out, whole.out);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace turbokv::cuda::testing
