// A batch of sequences of random K and V: on the GPU as pages in pools, on the CPU as the oracle
// wants them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/cuda/attention/attention.h"
#include "tests/unit/kernels/cpu/test_values.h"
#include "tests/unit/kernels/cuda/attention_oracle.h"
#include "tests/unit/kernels/cuda/gpu.h"

namespace turbokv::cuda::testing {

struct SequenceSpec {
  int pages = 0;
  int tail_tokens = 0;
};

struct AttentionCase {
  AttentionShape shape{8, 2, 128};
  std::vector<PageShape> pools;  // kv_heads and head_dim are those of `shape`
  std::vector<SequenceSpec> sequences;
  int queries = 1;
  AttentionOptions options{.softmax_scale = 0.0f};  // 0: 1 / sqrt(head_dim)
  std::vector<int32_t> query_positions;             // empty: the last tokens
  ValueType value_type = ValueType::kFp32;
  ValueType tail_type = ValueType::kBf16;
  ValueType source_type = ValueType::kBf16;
  float value_scale = 1.0f;
  float query_scale = 1.5f;
  int blocks = 0;
  bool pass_tails = true;  // or no tails at all: tail_tokens is null
  uint32_t seed = 1;
  // Where tables and pages come from, when not random: fn(is_v, token, head, channel).
  ::turbokv::testing::TestKv::ValueFn values;
};

struct AttentionResult {
  std::vector<float> out;
  std::vector<float> lse;
};

class AttentionHarness {
 public:
  explicit AttentionHarness(AttentionCase test_case);

  const AttentionCase& test_case() const { return case_; }
  AttentionConfig config() const;
  AttentionArguments arguments();
  DeviceBuffer<int32_t>& block_tables() { return *block_tables_; }
  DeviceBuffer<int32_t>& packed_tokens() { return *packed_tokens_; }

  // Runs once; failures are test failures.
  AttentionResult Run();
  AttentionResult Run(const DecodeAttention& attention, DeviceBuffer<uint8_t>& workspace);
  AttentionResult Download() const;

  OracleResult Expected(Centroids centroids = Centroids::kTable) const;
  OracleResult ExpectedOfFp16() const;

  // The rule: at most twice the error of an fp16 kernel on the same values.
  void ExpectMatch();
  void ExpectMatch(const AttentionResult& actual) const;
  // Against the public centroids.
  void ExpectNear(const AttentionResult& actual, double tolerance, Centroids centroids) const;
  double Error(const AttentionResult& actual, const OracleResult& expected) const;

 private:
  using TestKv = ::turbokv::testing::TestKv;
  DecodedSequence Decode(int index, Centroids centroids) const;
  // All sequences, decoded when they are first asked for.
  const std::vector<DecodedSequence>& Decoded(Centroids centroids) const;
  template <typename Fn>
  OracleResult ForEachSequence(Centroids centroids, const Fn& attend) const;
  void MakeSequence(int index);
  void Upload();
  TestKv MakeKv(ValueType type, int first_token, int tokens) const;

  AttentionCase case_;
  int max_pages_ = 1;
  std::vector<PageLayout> layouts_;
  // Of every pool: its pages' bytes in the order they were made.
  std::vector<std::vector<std::vector<uint8_t>>> pages_;
  std::vector<std::vector<std::pair<int, int>>> sequence_pages_;  // (pool, index)
  std::vector<TestKv> tails_;
  mutable std::vector<DecodedSequence> decoded_[2];  // by Centroids
  std::vector<float> q_;

  std::vector<DeviceBuffer<uint8_t>> pool_memory_;
  std::vector<PagePool> pools_;
  std::unique_ptr<DeviceBuffer<int32_t>> block_tables_, packed_tokens_, tail_tokens_, positions_;
  std::unique_ptr<DeviceBuffer<uint8_t>> page_pools_, q_bytes_, out_bytes_, tail_k_, tail_v_;
  std::unique_ptr<DeviceBuffer<float>> lse_, sinks_;
};

// K and V of `codec` alike in one pool, K mean where it may be.
std::vector<PageShape> OnePool(Codec k, Codec v, bool k_mean = true);

}  // namespace turbokv::cuda::testing
