// What the kernels' int8 tables cost against the public centroids, in exact arithmetic.
#include <cmath>
#include <random>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/cpu/codec.h"
#include "tests/unit/kernels/cpu/test_values.h"
#include "tests/unit/kernels/cuda/attention_oracle.h"

namespace turbokv::cuda::testing {
namespace {

using ::turbokv::testing::GaussianValues;
using ::turbokv::testing::KvOrder;
using ::turbokv::testing::LayoutOf;
using ::turbokv::testing::TestKv;

// The largest error of any of eight rows over twelve pages, relative to the row's output.
double WorstError(Codec codec, int head_dim) {
  const AttentionShape shape{8, 1, head_dim};
  const PageLayout layout = LayoutOf(1, head_dim, codec, codec, true);
  DecodedSequence table, exact;
  for (uint32_t page = 0; page < 12; ++page) {
    const TestKv kv(ValueType::kBf16, KvOrder::kNhd, kPageTokens, 1, head_dim,
                    GaussianValues(page));
    std::vector<uint8_t> bytes(layout.page_bytes);
    EXPECT_TRUE(cpu::EncodePage(layout, {}, kv.view(), absl::MakeSpan(bytes)).ok());
    AppendPage(*ParsePage(bytes), Centroids::kTable, &table);
    AppendPage(*ParsePage(bytes), Centroids::kPublic, &exact);
  }
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  std::vector<float> q(shape.q_heads * head_dim);
  for (float& value : q) value = 1.5f * normal(rng);
  const AttentionOptions options{.softmax_scale = 1.0f / std::sqrt(static_cast<float>(head_dim))};
  const int64_t positions[] = {exact.tokens - 1};
  return WorstRowError(OracleAttention(shape, options, table, positions, q).out,
                       OracleAttention(shape, options, exact, positions, q).out, head_dim);
}

TEST(AttentionTablesTest, AreNearThePublicCentroids) {
  struct Bound {
    Codec codec;
    double error;
  };
  for (const Bound& bound : {Bound{Codec::kTurbo2, 1.5e-3}, Bound{Codec::kTurbo3, 6e-3},
                             Bound{Codec::kTurbo4, 1.2e-2}}) {
    for (int head_dim : {64, 128, 256}) {
      const double error = WorstError(bound.codec, head_dim);
      EXPECT_LE(error, bound.error) << CodecName(bound.codec) << " head_dim " << head_dim;
      RecordProperty(absl::StrCat(CodecName(bound.codec), "_", head_dim), absl::StrCat(error));
      EXPECT_GT(error, 0) << "the tables are not the centroids";
    }
  }
}

}  // namespace
}  // namespace turbokv::cuda::testing
