// What attention refuses, and that it says why.
#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/attention/attention.h"
#include "tests/unit/kernels/cuda/attention_harness.h"

namespace turbokv::cuda::testing {
namespace {

using ::testing::HasSubstr;

class AttentionErrorsTest : public GpuTest {};

AttentionConfig GoodConfig() {
  AttentionConfig config;
  config.shape = {8, 2, 128};
  config.pools = {{2, 128, Codec::kTurbo3, Codec::kTurbo3, true}};
  return config;
}

void ExpectRefused(const std::function<void(AttentionConfig&)>& spoil, absl::StatusCode code,
                   const std::string& words) {
  AttentionConfig config = GoodConfig();
  spoil(config);
  const auto attention = DecodeAttention::Create(config);
  ASSERT_FALSE(attention.ok()) << words;
  EXPECT_EQ(attention.status().code(), code) << attention.status();
  EXPECT_THAT(std::string(attention.status().message()), HasSubstr(words));
}

TEST_F(AttentionErrorsTest, ConfigurationsAreChecked) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
  using C = AttentionConfig;
  ExpectRefused([](C& c) { c.shape.head_dim = 96; }, kUnimplemented, "head_dim 96");
  ExpectRefused([](C& c) { c.shape.kv_heads = 0; }, kInvalid, "kv_heads 0");
  ExpectRefused([](C& c) { c.shape.q_heads = 7; }, kInvalid, "q_heads 7");
  ExpectRefused([](C& c) { c.shape.q_heads = 34; }, kInvalid, "group of 17");
  ExpectRefused([](C& c) { c.queries = 9; }, kInvalid, "queries 9");
  ExpectRefused([](C& c) { c.queries = 0; }, kInvalid, "queries 0");
  ExpectRefused([](C& c) { c.max_batch = 0; }, kInvalid, "max_batch 0");
  ExpectRefused([](C& c) { c.max_pages = 0; }, kInvalid, "max_pages 0");
  ExpectRefused([](C& c) { c.max_batch = c.max_pages = 1 << 16; }, kInvalid, "2^31");
  ExpectRefused([](C& c) { c.pools.clear(); }, kInvalid, "number of pools 0");
  ExpectRefused([](C& c) { c.pools[0].kv_heads = 3; }, kInvalid, "pool 0 has 3 KV heads");
  ExpectRefused([](C& c) { c.pools[0].v_codec = Codec::kTurbo3Tcq; }, kUnimplemented, "turbo3_tcq");
  ExpectRefused([](C& c) { c.tail_type = ValueType::kFp32; }, kUnimplemented, "tail_type fp32");
  ExpectRefused([](C& c) { c.blocks = -1; }, kInvalid, "blocks -1");
  ExpectRefused([](C& c) { c.value_type = ValueType{7}; }, kInvalid, "value type 7");
}

class AttentionArgumentsTest : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    harness_ = std::make_unique<AttentionHarness>(
        AttentionCase{.pools = OnePool(Codec::kTurbo3, Codec::kTurbo3), .sequences = {{2, 3}}});
    auto attention = DecodeAttention::Create(harness_->config());
    ASSERT_TRUE(attention.ok()) << attention.status();
    attention_ = *std::move(attention);
    workspace_ = std::make_unique<DeviceBuffer<uint8_t>>(attention_->workspace_bytes());
  }

  void ExpectRefused(const std::function<void(AttentionArguments&)>& spoil,
                     const std::string& words) {
    AttentionArguments arguments = harness_->arguments();
    arguments.workspace = workspace_->data();
    spoil(arguments);
    const absl::Status status = attention_->Run(arguments, nullptr);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << words << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  }

  std::unique_ptr<AttentionHarness> harness_;
  std::unique_ptr<DecodeAttention> attention_;
  std::unique_ptr<DeviceBuffer<uint8_t>> workspace_;
};

template <typename T>
T* Misalign(T* pointer) {
  return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(pointer) + 2);
}

TEST_F(AttentionArgumentsTest, AreChecked) {
  using A = AttentionArguments;
  ExpectRefused([](A& a) { a.batch = 0; }, "batch 0");
  ExpectRefused([](A& a) { a.batch = 2; }, "batch 2 is not in 1..1");
  ExpectRefused([](A& a) { a.pools = nullptr; }, "pools is a null pointer");
  ExpectRefused([](A& a) { a.block_tables = nullptr; }, "block_tables is a null pointer");
  ExpectRefused([](A& a) { a.packed_tokens = nullptr; }, "packed_tokens is a null pointer");
  ExpectRefused([](A& a) { a.q = nullptr; }, "q is a null pointer");
  ExpectRefused([](A& a) { a.out = nullptr; }, "out is a null pointer");
  ExpectRefused([](A& a) { a.workspace = nullptr; }, "workspace is a null pointer");
  ExpectRefused([](A& a) { a.q = Misalign(static_cast<const char*>(a.q)); }, "q is 0x");
  ExpectRefused([](A& a) { a.workspace = Misalign(static_cast<char*>(a.workspace)); },
                "aligned to 256 bytes");
  ExpectRefused([](A& a) { a.tail.k = nullptr; }, "tail.k is a null pointer");
  ExpectRefused([](A& a) { a.tail.token_stride = 3; }, "tail.token_stride 3");
  ExpectRefused([](A& a) { a.softmax_scale = NAN; }, "softmax_scale");
  ExpectRefused([](A& a) { a.soft_cap = -1; }, "soft_cap -1");
  ExpectRefused([](A& a) { a.soft_cap = 1e30f; }, "soft_cap 1e+30");
  ExpectRefused([](A& a) { a.lse = Misalign(a.lse); }, "lse is 0x");
  ExpectRefused([](A& a) { a.tail_tokens = Misalign(a.tail_tokens); }, "tail_tokens is 0x");
  ExpectRefused([](A& a) { a.window_tokens = -5; }, "window_tokens -5");
  ExpectRefused([](A& a) { a.sparse_v_threshold = 2; }, "sparse_v_threshold 2");
  PagePool pool = harness_->arguments().pools[0];
  pool.stride_bytes = 64;
  ExpectRefused([&](A& a) { a.pools = &pool; }, "stride_bytes of a page pool is 64");
}

TEST_F(AttentionArgumentsTest, TablesAreChecked) {
  AttentionArguments arguments = harness_->arguments();
  arguments.workspace = workspace_->data();
  const auto check = [&] { return attention_->CheckTables(arguments, nullptr); };
  EXPECT_TRUE(check().ok());
  const std::vector<int32_t> table = harness_->block_tables().Download();
  std::vector<int32_t> spoiled = table;
  spoiled[1] = 99;
  harness_->block_tables().Upload(spoiled);
  EXPECT_THAT(std::string(check().message()), HasSubstr("page id 99 of sequence 0, page 1"));
  harness_->block_tables().Upload(table);
  harness_->packed_tokens().Upload(std::vector<int32_t>{100});
  EXPECT_THAT(std::string(check().message()), HasSubstr("packed_tokens of sequence 0 is 100"));
  harness_->packed_tokens().Upload(std::vector<int32_t>{128 * 100});
  EXPECT_THAT(std::string(check().message()), HasSubstr("packed_tokens of sequence 0 is 12800"));
}

}  // namespace
}  // namespace turbokv::cuda::testing
