// DecodeAttention without tails: the pages kernel gives the results, by the last thread block that
// comes to a row. What may go wrong is in the counters, so calls are repeated in every way.
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/cuda/attention/attention.h"
#include "tests/unit/kernels/cuda/attention_harness.h"

namespace turbokv::cuda::testing {
namespace {

class AttentionFinishTest : public GpuTest {};

std::vector<PageShape> Turbo3() { return OnePool(Codec::kTurbo3, Codec::kTurbo3); }

// As bytes: lse is -infinity where nothing is seen, and may not be a NaN of a kind.
void ExpectSame(const AttentionResult& a, const AttentionResult& b) {
  const auto same = [](const std::vector<float>& x, const std::vector<float>& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
  };
  EXPECT_TRUE(same(a.out, b.out));
  EXPECT_TRUE(same(a.lse, b.lse));
}

// But for rounding.
void ExpectClose(const AttentionResult& a, const AttentionResult& b) {
  ASSERT_EQ(a.out.size(), b.out.size());
  ASSERT_EQ(a.lse.size(), b.lse.size());
  for (size_t i = 0; i < a.out.size(); ++i) ASSERT_NEAR(a.out[i], b.out[i], 1e-5) << i;
  for (size_t i = 0; i < a.lse.size(); ++i) {
    if (std::isinf(b.lse[i])) {
      ASSERT_EQ(a.lse[i], b.lse[i]) << i;
    } else {
      ASSERT_NEAR(a.lse[i], b.lse[i], 1e-4) << i;
    }
  }
}

TEST_F(AttentionFinishTest, MatchesForEveryPairHeadDimAndGroup) {
  for (const auto& [k, v] : {std::pair{Codec::kInt5, Codec::kInt5},
                             {Codec::kTurbo4, Codec::kTurbo3},
                             {Codec::kTurbo3, Codec::kTurbo3},
                             {Codec::kBf16, Codec::kBf16}}) {
    for (int head_dim : {64, 128, 256}) {
      for (int group : {1, 5, 8, 16}) {
        for (int queries : {1, 3}) {
          SCOPED_TRACE(absl::StrCat(CodecName(k), "/", CodecName(v), " head_dim ", head_dim,
                                    " group ", group, " queries ", queries));
          AttentionHarness({.shape = {2 * group, 2, head_dim},
                            .pools = OnePool(k, v),
                            .sequences = {{5, 0}, {0, 0}, {1, 0}, {9, 0}},
                            .queries = queries,
                            .blocks = 20,
                            .pass_tails = false})
              .ExpectMatch();
        }
      }
    }
  }
}

TEST_F(AttentionFinishTest, MatchesUnderEveryDivision) {
  for (int blocks : {4, 5, 7, 33, 132, 500, 3000}) {
    SCOPED_TRACE(blocks);
    AttentionHarness harness({.shape = {16, 2, 128},
                              .pools = Turbo3(),
                              .sequences = {{90, 0}, {1, 0}, {0, 0}, {17, 0}, {0, 0}, {5, 0}},
                              .blocks = blocks,
                              .pass_tails = false});
    const AttentionResult first = harness.Run();
    harness.ExpectMatch(first);
    ExpectSame(first, harness.Run());
  }
}

// All the partial results of one row: more than a warp has lanes.
TEST_F(AttentionFinishTest, AddsUpManyBlocks) {
  for (int blocks : {31, 32, 33, 64, 90}) {
    SCOPED_TRACE(blocks);
    AttentionHarness({.shape = {8, 1, 128},
                      .pools = Turbo3(),
                      .sequences = {{600, 0}},
                      .blocks = blocks,
                      .pass_tails = false})
        .ExpectMatch();
  }
}

TEST_F(AttentionFinishTest, MasksAndCountsSinks) {
  const std::vector<float> sinks = {0.5f, -3.0f, 4.0f, 20.0f};
  for (int64_t window : {0, 1, 129, 300}) {
    for (bool with_sinks : {false, true}) {
      for (bool with_positions : {false, true}) {
        SCOPED_TRACE(absl::StrCat("window ", window, " sinks ", with_sinks, with_positions));
        AttentionCase test_case{.shape = {4, 2, 128},
                                .pools = Turbo3(),
                                .sequences = {{6, 0}, {2, 0}, {0, 0}, {3, 0}},
                                .queries = 3,
                                .pass_tails = false};
        test_case.options.window_tokens = window;
        if (with_sinks) test_case.options.sink_logits = sinks;
        if (with_positions) {
          test_case.query_positions = {0, 500, 700, 100, 255, 1000, 2, 3, 4, -1, -2, -3};
        }
        AttentionHarness(test_case).ExpectMatch();
      }
    }
  }
}

TEST_F(AttentionFinishTest, EmptySequencesGiveZerosAndMinusInfinity) {
  AttentionHarness harness({.pools = Turbo3(), .sequences = {{0, 0}, {0, 0}}, .pass_tails = false});
  const AttentionResult result = harness.Run();
  for (float value : result.out) EXPECT_EQ(value, 0.0f);
  for (float lse : result.lse) EXPECT_EQ(lse, -std::numeric_limits<float>::infinity());
}

TEST_F(AttentionFinishTest, DoesNotCareWhatTheWorkspaceHeld) {
  AttentionHarness harness({.shape = {16, 2, 128},
                            .pools = Turbo3(),
                            .sequences = {{40, 0}, {3, 0}, {0, 0}},
                            .blocks = 11,
                            .pass_tails = false});
  const auto attention = DecodeAttention::Create(harness.config());
  ASSERT_TRUE(attention.ok()) << attention.status();
  DeviceBuffer<uint8_t> workspace((*attention)->workspace_bytes());  // 0xff
  const AttentionResult first = harness.Run(**attention, workspace);
  harness.ExpectMatch(first);
  for (int byte : {0x00, 0x01, 0x7f, 0xff}) {
    SCOPED_TRACE(byte);
    ASSERT_EQ(cudaMemset(workspace.data(), byte, workspace.bytes()), cudaSuccess);
    ExpectSame(first, harness.Run(**attention, workspace));
    ExpectSame(first, harness.Run(**attention, workspace));
  }
}

TEST_F(AttentionFinishTest, ThousandsOfCallsGiveTheSameBytes) {
  AttentionHarness harness({.shape = {16, 2, 128},
                            .pools = Turbo3(),
                            .sequences = {{61, 0}, {3, 0}, {0, 0}, {20, 0}},
                            .pass_tails = false});
  const auto attention = DecodeAttention::Create(harness.config());
  ASSERT_TRUE(attention.ok()) << attention.status();
  DeviceBuffer<uint8_t> workspace((*attention)->workspace_bytes());
  const AttentionResult first = harness.Run(**attention, workspace);
  harness.ExpectMatch(first);
  AttentionArguments arguments = harness.arguments();
  arguments.workspace = workspace.data();
  for (int round = 0; round < 100; ++round) {
    for (int call = 0; call < 40; ++call) {
      ASSERT_TRUE((*attention)->Run(arguments, nullptr).ok());
    }
    const AttentionResult again = harness.Download();
    ExpectSame(first, again);
    if (HasFailure()) return;
  }
}

// Two configurations take turns on one stream, each with a workspace of its own.
TEST_F(AttentionFinishTest, TwoObjectsTakeTurns) {
  AttentionHarness one({.shape = {16, 2, 128},
                        .pools = Turbo3(),
                        .sequences = {{33, 0}, {7, 0}},
                        .pass_tails = false});
  AttentionHarness other({.shape = {12, 4, 64},
                          .pools = OnePool(Codec::kInt5, Codec::kInt5),
                          .sequences = {{2, 0}, {70, 0}, {0, 0}},
                          .queries = 2,
                          .blocks = 50,
                          .pass_tails = false});
  const auto one_attention = DecodeAttention::Create(one.config());
  const auto other_attention = DecodeAttention::Create(other.config());
  ASSERT_TRUE(one_attention.ok() && other_attention.ok());
  DeviceBuffer<uint8_t> one_workspace((*one_attention)->workspace_bytes());
  DeviceBuffer<uint8_t> other_workspace((*other_attention)->workspace_bytes());
  const AttentionResult one_first = one.Run(**one_attention, one_workspace);
  const AttentionResult other_first = other.Run(**other_attention, other_workspace);
  one.ExpectMatch(one_first);
  other.ExpectMatch(other_first);
  AttentionArguments one_arguments = one.arguments();
  one_arguments.workspace = one_workspace.data();
  AttentionArguments other_arguments = other.arguments();
  other_arguments.workspace = other_workspace.data();
  for (int round = 0; round < 50; ++round) {
    for (int i = 0; i < 7; ++i) {
      ASSERT_TRUE((*one_attention)->Run(one_arguments, nullptr).ok());
      ASSERT_TRUE((*other_attention)->Run(other_arguments, nullptr).ok());
    }
    ExpectSame(one_first, one.Download());
    ExpectSame(other_first, other.Download());
    if (HasFailure()) return;
  }
}

// Replays follow the lengths; a call with tails of no tokens, which has a merge kernel, is the
// measure.
TEST_F(AttentionFinishTest, GraphReplaysFollowTheLengths) {
  const AttentionCase test_case{.shape = {16, 2, 128},
                                .pools = Turbo3(),
                                .sequences = {{30, 0}, {50, 0}, {4, 0}},
                                .pass_tails = false};
  AttentionCase merged_case = test_case;
  merged_case.pass_tails = true;
  AttentionHarness harness(test_case), merged(merged_case);
  const auto attention = DecodeAttention::Create(harness.config());
  ASSERT_TRUE(attention.ok()) << attention.status();
  DeviceBuffer<uint8_t> workspace((*attention)->workspace_bytes());
  DeviceBuffer<uint8_t> merged_workspace((*attention)->workspace_bytes());
  AttentionArguments arguments = harness.arguments();
  arguments.workspace = workspace.data();

  cudaStream_t stream;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  cudaGraph_t graph;
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  const absl::Status status = (*attention)->Run(arguments, stream);
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_TRUE(status.ok()) << status;
  cudaGraphExec_t executable;
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  const std::vector<std::vector<int>> pages = {{0, 0, 0},  {30, 50, 4}, {0, 1, 0}, {1, 0, 0},
                                               {30, 0, 4}, {0, 0, 0},   {7, 50, 1}};
  for (const std::vector<int>& some : pages) {
    std::vector<int32_t> lengths;
    for (int count : some) lengths.push_back(count * kPageTokens);
    SCOPED_TRACE(absl::StrCat(some[0], " ", some[1], " ", some[2]));
    harness.packed_tokens().Upload(lengths);
    merged.packed_tokens().Upload(lengths);
    const AttentionResult expected = merged.Run(**attention, merged_workspace);
    for (int replay = 0; replay < 3; ++replay) {
      ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
      ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
      ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      ExpectClose(harness.Download(), expected);
    }
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace turbokv::cuda::testing
