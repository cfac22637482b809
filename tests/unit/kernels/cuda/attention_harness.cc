#include "tests/unit/kernels/cuda/attention_harness.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/cpu/codec.h"
#include "kernels/cuda/primitives/page_format.cuh"
#include "kernels/format/small_floats.h"
#include "kernels/reference/values.h"

namespace turbokv::cuda::testing {
namespace {

// Names no page: what stands in tables where nothing may be read.
constexpr int32_t kGarbageId = 0x7ffffff0;
constexpr int kSparePages = 3;  // poisoned pages between the used ones

std::vector<uint8_t> FloatsToBytes(absl::Span<const float> values, ValueType type) {
  std::vector<uint8_t> bytes(values.size() * ValueBytes(type));
  for (size_t i = 0; i < values.size(); ++i) {
    const float value = values[i];
    const uint16_t bits = type == ValueType::kBf16 ? FloatToBf16(value) : FloatToFp16(value);
    if (type == ValueType::kFp32) {
      std::memcpy(&bytes[4 * i], &value, 4);
    } else {
      std::memcpy(&bytes[2 * i], &bits, 2);
    }
  }
  return bytes;
}

std::vector<float> BytesToFloats(absl::Span<const uint8_t> bytes, ValueType type) {
  std::vector<float> values(bytes.size() / ValueBytes(type));
  const KvView view{type, bytes.data(), nullptr, 1, 0, static_cast<int>(values.size())};
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] =
        static_cast<float>(reference::ReadValue(view, bytes.data(), static_cast<int>(i), 0, 0));
  }
  return values;
}

template <typename T>
std::unique_ptr<DeviceBuffer<T>> ToDevice(const std::vector<T>& values) {
  return std::make_unique<DeviceBuffer<T>>(values);
}

}  // namespace

std::vector<PageShape> OnePool(Codec k, Codec v, bool k_mean) {
  return {{0, 0, k, v, k_mean && IsQuantized(k)}};
}

AttentionHarness::AttentionHarness(AttentionCase test_case) : case_(std::move(test_case)) {
  if (case_.options.softmax_scale == 0.0f) {
    case_.options.softmax_scale = 1.0f / std::sqrt(static_cast<float>(case_.shape.head_dim));
  }
  if (!case_.values) case_.values = ::turbokv::testing::GaussianValues(case_.seed);
  for (PageShape& pool : case_.pools) {
    pool.kv_heads = case_.shape.kv_heads;
    pool.head_dim = case_.shape.head_dim;
    layouts_.push_back(*PageLayout::For(pool));
  }
  for (SequenceSpec& spec : case_.sequences) {
    max_pages_ = std::max(max_pages_, spec.pages);
    if (!case_.pass_tails) spec.tail_tokens = 0;
  }
  max_pages_ += 2;  // tables are wider than any sequence
  pages_.resize(case_.pools.size());
  for (size_t i = 0; i < case_.sequences.size(); ++i) MakeSequence(static_cast<int>(i));

  std::mt19937 rng(case_.seed + 77);
  std::normal_distribution<float> normal;
  q_.resize(case_.sequences.size() * case_.queries * case_.shape.q_heads * case_.shape.head_dim);
  for (float& value : q_) value = case_.query_scale * normal(rng);
  q_ = BytesToFloats(FloatsToBytes(q_, case_.value_type), case_.value_type);
  Upload();
}

AttentionHarness::TestKv AttentionHarness::MakeKv(ValueType type, int first_token,
                                                  int tokens) const {
  return TestKv(type, ::turbokv::testing::KvOrder::kNhd, tokens, case_.shape.kv_heads,
                case_.shape.head_dim, [&](bool is_v, int token, int head, int c) {
                  return case_.value_scale * case_.values(is_v, first_token + token, head, c);
                });
}

void AttentionHarness::MakeSequence(int index) {
  const SequenceSpec& spec = case_.sequences[index];
  std::vector<std::pair<int, int>> placed;
  for (int page = 0; page < spec.pages; ++page) {
    const int pool = static_cast<int>((page * 7 + index * 3) / 2 % case_.pools.size());
    const TestKv kv = MakeKv(case_.source_type, page * kPageTokens, kPageTokens);
    std::vector<uint8_t> bytes(layouts_[pool].page_bytes);
    EXPECT_TRUE(cpu::EncodePage(layouts_[pool], {}, kv.view(), absl::MakeSpan(bytes)).ok());
    placed.push_back({pool, static_cast<int>(pages_[pool].size())});
    pages_[pool].push_back(std::move(bytes));
  }
  sequence_pages_.push_back(std::move(placed));
  tails_.push_back(MakeKv(case_.tail_type, spec.pages * kPageTokens, spec.tail_tokens));
}

void AttentionHarness::Upload() {
  std::mt19937 rng(case_.seed + 5);
  std::vector<std::vector<int32_t>> ids(pages_.size());
  for (size_t pool = 0; pool < pages_.size(); ++pool) {
    const int count = static_cast<int>(pages_[pool].size()) + kSparePages;
    std::vector<int32_t>& pool_ids = ids[pool];
    for (int id = 0; id < count; ++id) pool_ids.push_back(id);
    std::shuffle(pool_ids.begin(), pool_ids.end(), rng);
    // Wider than a page by one section, so that strides are not taken for sizes.
    const int64_t stride = static_cast<int64_t>(layouts_[pool].page_bytes) + 128;
    pool_memory_.emplace_back(static_cast<size_t>(stride * count));
    pools_.push_back({case_.pools[pool], pool_memory_.back().data(), stride, count});
    for (size_t page = 0; page < pages_[pool].size(); ++page) {
      EXPECT_EQ(
          cudaMemcpy(pools_[pool].device_base + pool_ids[page] * stride, pages_[pool][page].data(),
                     pages_[pool][page].size(), cudaMemcpyHostToDevice),
          cudaSuccess);
    }
  }

  const size_t batch = case_.sequences.size();
  std::vector<int32_t> tables(batch * max_pages_, kGarbageId), packed, tails;
  std::vector<uint8_t> page_pools(tables.size(), 0xff);
  const size_t tail_values = size_t{kMaxTailTokens} * case_.shape.kv_heads * case_.shape.head_dim;
  tail_k_ = std::make_unique<DeviceBuffer<uint8_t>>(2 * batch * tail_values);
  tail_v_ = std::make_unique<DeviceBuffer<uint8_t>>(2 * batch * tail_values);
  for (size_t i = 0; i < batch; ++i) {
    packed.push_back(case_.sequences[i].pages * kPageTokens);
    tails.push_back(case_.sequences[i].tail_tokens);
    for (size_t page = 0; page < sequence_pages_[i].size(); ++page) {
      const auto [pool, index] = sequence_pages_[i][page];
      tables[i * max_pages_ + page] = ids[pool][index];
      page_pools[i * max_pages_ + page] = static_cast<uint8_t>(pool);
    }
    const size_t bytes = size_t{2} * tails.back() * case_.shape.kv_heads * case_.shape.head_dim;
    const KvView& view = tails_[i].view();
    EXPECT_EQ(
        cudaMemcpy(tail_k_->data() + 2 * i * tail_values, view.k, bytes, cudaMemcpyHostToDevice),
        cudaSuccess);
    EXPECT_EQ(
        cudaMemcpy(tail_v_->data() + 2 * i * tail_values, view.v, bytes, cudaMemcpyHostToDevice),
        cudaSuccess);
  }
  block_tables_ = ToDevice(tables);
  packed_tokens_ = ToDevice(packed);
  tail_tokens_ = ToDevice(tails);
  page_pools_ = ToDevice(page_pools);
  if (!case_.query_positions.empty()) positions_ = ToDevice(case_.query_positions);
  q_bytes_ = ToDevice(FloatsToBytes(q_, case_.value_type));
  out_bytes_ = std::make_unique<DeviceBuffer<uint8_t>>(q_bytes_->size());
  lse_ = std::make_unique<DeviceBuffer<float>>(q_.size() / case_.shape.head_dim);
  if (!case_.options.sink_logits.empty()) {
    sinks_ = ToDevice(
        std::vector<float>(case_.options.sink_logits.begin(), case_.options.sink_logits.end()));
  }
}

AttentionConfig AttentionHarness::config() const {
  AttentionConfig config;
  config.shape = case_.shape;
  config.queries = case_.queries;
  config.max_batch = static_cast<int>(case_.sequences.size());
  config.max_pages = max_pages_;
  config.pools = case_.pools;
  config.value_type = case_.value_type;
  config.tail_type = case_.tail_type;
  config.blocks = case_.blocks;
  return config;
}

AttentionArguments AttentionHarness::arguments() {
  AttentionArguments arguments;
  arguments.batch = static_cast<int>(case_.sequences.size());
  arguments.pools = pools_.data();
  arguments.block_tables = block_tables_->data();
  arguments.page_pools = pools_.size() > 1 ? page_pools_->data() : nullptr;
  arguments.packed_tokens = packed_tokens_->data();
  if (case_.pass_tails) arguments.tail_tokens = tail_tokens_->data();
  if (positions_ != nullptr) arguments.query_positions = positions_->data();
  const int64_t token_stride = int64_t{case_.shape.kv_heads} * case_.shape.head_dim;
  arguments.tail = {tail_k_->data(), tail_v_->data(), kMaxTailTokens * token_stride, token_stride,
                    case_.shape.head_dim};
  arguments.q = q_bytes_->data();
  arguments.out = out_bytes_->data();
  arguments.lse = lse_->data();
  if (sinks_ != nullptr) arguments.sink_logits = sinks_->data();
  arguments.softmax_scale = case_.options.softmax_scale;
  arguments.soft_cap = case_.options.soft_cap;
  arguments.window_tokens = case_.options.window_tokens;
  arguments.sparse_v_threshold = case_.options.sparse_v_threshold;
  return arguments;
}

AttentionResult AttentionHarness::Run() {
  const auto attention = DecodeAttention::Create(config());
  EXPECT_TRUE(attention.ok()) << attention.status();
  if (!attention.ok()) return {};
  DeviceBuffer<uint8_t> workspace((*attention)->workspace_bytes());
  return Run(**attention, workspace);
}

AttentionResult AttentionHarness::Run(const DecodeAttention& attention,
                                      DeviceBuffer<uint8_t>& workspace) {
  AttentionArguments call = arguments();
  call.workspace = workspace.data();
  const absl::Status checked = attention.CheckTables(call, nullptr);
  EXPECT_TRUE(checked.ok()) << checked;
  const absl::Status status = attention.Run(call, nullptr);
  EXPECT_TRUE(status.ok()) << status;
  return Download();
}

AttentionResult AttentionHarness::Download() const {
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return {BytesToFloats(out_bytes_->Download(), case_.value_type), lse_->Download()};
}

DecodedSequence AttentionHarness::Decode(int index, Centroids centroids) const {
  DecodedSequence sequence;
  for (const auto& [pool, page] : sequence_pages_[index]) {
    AppendPage(*ParsePage(pages_[pool][page]), centroids, &sequence);
  }
  const KvView& tail = tails_[index].view();
  for (int token = 0; token < tail.tokens; ++token) {
    for (int head = 0; head < case_.shape.kv_heads; ++head) {
      for (int c = 0; c < case_.shape.head_dim; ++c) {
        sequence.k.push_back(reference::ReadValue(tail, tail.k, token, head, c));
        sequence.v.push_back(reference::ReadValue(tail, tail.v, token, head, c));
      }
    }
  }
  sequence.tokens += tail.tokens;
  return sequence;
}

const std::vector<DecodedSequence>& AttentionHarness::Decoded(Centroids centroids) const {
  std::vector<DecodedSequence>& decoded = decoded_[static_cast<int>(centroids)];
  for (int i = static_cast<int>(decoded.size()); i < static_cast<int>(case_.sequences.size());
       ++i) {
    decoded.push_back(Decode(i, centroids));
  }
  return decoded;
}

template <typename Fn>
OracleResult AttentionHarness::ForEachSequence(Centroids centroids, const Fn& attend) const {
  OracleResult all;
  const size_t q_values = q_.size() / case_.sequences.size();
  for (size_t i = 0; i < case_.sequences.size(); ++i) {
    const DecodedSequence& sequence = Decoded(centroids)[i];
    std::vector<int64_t> positions;
    for (int query = 0; query < case_.queries; ++query) {
      positions.push_back(case_.query_positions.empty()
                              ? sequence.tokens - case_.queries + query
                              : case_.query_positions[i * case_.queries + query]);
    }
    const OracleResult result =
        attend(sequence, positions, absl::MakeConstSpan(q_).subspan(i * q_values, q_values));
    all.out.insert(all.out.end(), result.out.begin(), result.out.end());
    all.lse.insert(all.lse.end(), result.lse.begin(), result.lse.end());
  }
  return all;
}

OracleResult AttentionHarness::Expected(Centroids centroids) const {
  return ForEachSequence(
      centroids, [&](const DecodedSequence& sequence, absl::Span<const int64_t> positions,
                     absl::Span<const float> q) {
        return OracleAttention(case_.shape, case_.options, sequence, positions, q);
      });
}

OracleResult AttentionHarness::ExpectedOfFp16() const {
  return ForEachSequence(Centroids::kTable,
                         [&](const DecodedSequence& sequence, absl::Span<const int64_t> positions,
                             absl::Span<const float> q) {
                           return Fp16Attention(case_.shape, case_.options, sequence, positions, q);
                         });
}

double AttentionHarness::Error(const AttentionResult& actual, const OracleResult& expected) const {
  const std::vector<double> out(actual.out.begin(), actual.out.end());
  return WorstRowError(out, expected.out, case_.shape.head_dim);
}

void AttentionHarness::ExpectMatch() { ExpectMatch(Run()); }

void AttentionHarness::ExpectMatch(const AttentionResult& actual) const {
  const OracleResult expected = Expected();
  const OracleResult fp16 = ExpectedOfFp16();
  const double fp16_error = WorstRowError(fp16.out, expected.out, case_.shape.head_dim);
  const double error = Error(actual, expected);
  // The last term is for cases that fp16 happens to hold exactly.
  EXPECT_LE(error, 2 * fp16_error + 1e-5) << "fp16 error " << fp16_error;
  // Scores carry the rounding of q to 16-bit integers, which an fp16 kernel does not have: it shows
  // in the log-sum-exp of large scores (measured: up to 2.7e-5 of them).
  constexpr double kQueryRounding = 0x1p-14;
  ASSERT_EQ(actual.lse.size(), expected.lse.size());
  for (size_t row = 0; row < expected.lse.size(); ++row) {
    if (std::isinf(expected.lse[row])) {
      EXPECT_EQ(actual.lse[row], expected.lse[row]) << "row " << row;
    } else {
      EXPECT_NEAR(actual.lse[row], expected.lse[row],
                  1e-3 + kQueryRounding * std::abs(expected.lse[row]) +
                      2 * std::abs(fp16.lse[row] - expected.lse[row]))
          << "row " << row;
    }
  }
}

void AttentionHarness::ExpectNear(const AttentionResult& actual, double tolerance,
                                  Centroids centroids) const {
  EXPECT_LE(Error(actual, Expected(centroids)), tolerance);
}

}  // namespace turbokv::cuda::testing
