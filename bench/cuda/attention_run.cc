#include "bench/cuda/attention_run.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "kernels/cuda/attention/attention.h"
#include "kernels/format/small_floats.h"

namespace turbokv::bench {
namespace {

constexpr int kWorkspaceAlignmentBytes = 256;

// Everything that one call of DecodeAttention::Run needs.
class Batch {
 public:
  static absl::StatusOr<std::unique_ptr<Batch>> Create(const AttentionCase& test,
                                                       PageSupply& supply) {
    auto batch = std::unique_ptr<Batch>(new Batch(test));
    TURBOKV_ASSIGN_OR_RETURN(batch->pool_, supply.Fill(test.page, test.total_pages()));
    TURBOKV_RETURN_IF_ERROR(batch->CreateTables());
    TURBOKV_RETURN_IF_ERROR(batch->CreateValues());
    if (test.tail_tokens > 0) TURBOKV_RETURN_IF_ERROR(batch->CreateTails());
    TURBOKV_RETURN_IF_ERROR(batch->CreateKernels());
    return batch;
  }

  absl::Status Run(cudaStream_t stream) const { return attention_->Run(arguments_, stream); }

  // Of what the kernel must read: slices without page headers, and tails.
  double Bytes() const;
  // Empty, or what is wrong with the results of the last run.
  absl::StatusOr<std::string> WhatIsWrong() const;

 private:
  explicit Batch(const AttentionCase& test) : test_(test) {}

  int q_heads() const { return test_.group_size * test_.page.kv_heads; }
  size_t rows() const { return size_t{1} * test_.batch() * test_.queries * q_heads(); }
  size_t TailValues() const {
    return size_t{1} * test_.batch() * test_.tail_tokens * test_.page.kv_heads *
           test_.page.head_dim;
  }

  absl::Status CreateTables();
  absl::Status CreateValues();
  absl::Status CreateTails();
  absl::Status CreateKernels();

  const AttentionCase& test_;
  FilledPool pool_;
  DeviceMemory block_tables_, packed_tokens_, tail_tokens_, tail_k_, tail_v_, q_, out_, lse_,
      workspace_;
  std::vector<uint16_t> host_q_;
  std::unique_ptr<cuda::DecodeAttention> attention_;
  cuda::AttentionArguments arguments_;
};

absl::Status Batch::CreateTables() {
  std::vector<int32_t> tables(size_t{1} * test_.batch() * test_.max_pages(), -1);
  std::vector<int32_t> packed_tokens;
  auto next = pool_.host_ids.begin();
  for (int i = 0; i < test_.batch(); ++i) {
    const int pages = test_.sequence_pages[i];
    std::copy(next, next + pages, tables.begin() + size_t{1} * i * test_.max_pages());
    next += pages;
    packed_tokens.push_back(pages * kPageTokens);
  }
  TURBOKV_ASSIGN_OR_RETURN(block_tables_, DeviceMemory::Of(absl::MakeConstSpan(tables)));
  TURBOKV_ASSIGN_OR_RETURN(packed_tokens_, DeviceMemory::Of(absl::MakeConstSpan(packed_tokens)));
  arguments_.batch = test_.batch();
  arguments_.pools = &pool_.pool;
  arguments_.block_tables = block_tables_.As<int32_t>();
  arguments_.packed_tokens = packed_tokens_.As<int32_t>();
  return absl::OkStatus();
}

absl::Status Batch::CreateValues() {
  const size_t values = rows() * test_.page.head_dim;
  host_q_ = GaussianBf16(values, 2);
  TURBOKV_ASSIGN_OR_RETURN(q_, DeviceMemory::Of(absl::MakeConstSpan(host_q_)));
  TURBOKV_ASSIGN_OR_RETURN(out_, DeviceMemory::Allocate(values * sizeof(uint16_t)));
  TURBOKV_ASSIGN_OR_RETURN(lse_, DeviceMemory::Allocate(rows() * sizeof(float)));
  arguments_.q = q_.As<void>();
  arguments_.out = out_.As<void>();
  arguments_.lse = lse_.As<float>();
  arguments_.softmax_scale = 1 / std::sqrt(static_cast<float>(test_.page.head_dim));
  return absl::OkStatus();
}

absl::Status Batch::CreateTails() {
  const std::vector<int32_t> lengths(test_.batch(), test_.tail_tokens);
  TURBOKV_ASSIGN_OR_RETURN(tail_tokens_, DeviceMemory::Of(absl::MakeConstSpan(lengths)));
  const std::vector<uint16_t> k = GaussianBf16(TailValues(), 3);
  const std::vector<uint16_t> v = GaussianBf16(TailValues(), 4);
  TURBOKV_ASSIGN_OR_RETURN(tail_k_, DeviceMemory::Of(absl::MakeConstSpan(k)));
  TURBOKV_ASSIGN_OR_RETURN(tail_v_, DeviceMemory::Of(absl::MakeConstSpan(v)));
  const int64_t token_stride = int64_t{test_.page.kv_heads} * test_.page.head_dim;
  arguments_.tail_tokens = tail_tokens_.As<int32_t>();
  arguments_.tail = {tail_k_.As<void>(), tail_v_.As<void>(), test_.tail_tokens * token_stride,
                     token_stride, test_.page.head_dim};
  return absl::OkStatus();
}

absl::Status Batch::CreateKernels() {
  cuda::AttentionConfig config;
  config.shape = {q_heads(), test_.page.kv_heads, test_.page.head_dim};
  config.queries = test_.queries;
  config.max_batch = test_.batch();
  config.max_pages = test_.max_pages();
  config.pools = {test_.page};
  TURBOKV_ASSIGN_OR_RETURN(attention_, cuda::DecodeAttention::Create(config));
  const size_t bytes = std::max<size_t>(attention_->workspace_bytes(), kWorkspaceAlignmentBytes);
  TURBOKV_ASSIGN_OR_RETURN(workspace_, DeviceMemory::Allocate(bytes));
  arguments_.workspace = workspace_.As<void>();
  return absl::OkStatus();
}

double Batch::Bytes() const {
  const double slices = 1.0 * test_.total_pages() * test_.page.kv_heads;
  return slices * pool_.layout.slice_bytes + 2.0 * TailValues() * sizeof(uint16_t);
}

// No oracle, which unit tests have, but enough to notice work that was not done. K is standard
// normal, so the scores of a query are normal with variance |q|^2 x scale^2, whence
// lse ~ log(tokens) + variance / 2; and V's mean has a spread of about exp(variance / 2) /
// sqrt(tokens).
absl::StatusOr<std::string> Batch::WhatIsWrong() const {
  std::vector<float> lse(rows());
  std::vector<uint16_t> out(host_q_.size());
  TURBOKV_RETURN_IF_ERROR(lse_.Read(0, lse.data(), lse_.bytes()));
  TURBOKV_RETURN_IF_ERROR(out_.Read(0, out.data(), out_.bytes()));
  const int dim = test_.page.head_dim;
  const size_t sequence_rows = rows() / test_.batch();
  for (size_t row = 0; row < rows(); ++row) {
    double q_squares = 0;
    double out_squares = 0;
    for (size_t i = row * dim; i < (row + 1) * dim; ++i) {
      q_squares += std::pow(Bf16ToFloat(host_q_[i]), 2);
      out_squares += std::pow(Bf16ToFloat(out[i]), 2);
    }
    const size_t sequence = row / sequence_rows;
    const double tokens = test_.sequence_pages[sequence] * kPageTokens + test_.tail_tokens;
    const double distinct = std::min<double>(tokens, PageSupply::kDistinctPages * kPageTokens);
    const double variance = q_squares / dim;
    const double expected_lse = std::log(tokens) + variance / 2;
    // Where single tokens weigh much, sums of exponentials of few normals have long tails.
    const double tolerance = 0.1 + 12 / std::sqrt(distinct);
    if (!(std::abs(lse[row] - expected_lse) < tolerance)) {
      return absl::StrFormat("lse[%d] is %.3f, expected %.3f +- %.3f", row, lse[row], expected_lse,
                             tolerance);
    }
    const double spread = std::sqrt(out_squares / dim * distinct) / std::exp(variance / 2);
    if (!(spread > 0.3 && spread < 3)) {
      return absl::StrFormat("out[%d] is %.2f times as large as expected", row, spread);
    }
  }
  return "";
}

}  // namespace

absl::StatusOr<Measurement> MeasureAttention(const AttentionCase& test, PageSupply& supply,
                                             Stopwatch& stopwatch) {
  TURBOKV_ASSIGN_OR_RETURN(const std::unique_ptr<Batch> batch, Batch::Create(test, supply));
  const Work work = [&](cudaStream_t stream) { return batch->Run(stream); };
  Measurement measurement;
  measurement.name = test.name;
  measurement.limit = Limit::kRead;
  measurement.bytes = batch->Bytes();
  TURBOKV_ASSIGN_OR_RETURN(measurement.launches, stopwatch.TimeLaunches(work));
  TURBOKV_ASSIGN_OR_RETURN(measurement.graph, stopwatch.TimeGraph(work));
  TURBOKV_ASSIGN_OR_RETURN(measurement.wrong, batch->WhatIsWrong());
  measurement.facts = {{"kind", "attention"},
                       {"shape", test.ShapeKey()},
                       {"k_codec", std::string(CodecName(test.page.k_codec))},
                       {"v_codec", std::string(CodecName(test.page.v_codec))},
                       {"k_mean", test.page.k_mean},
                       {"batch", test.batch()},
                       {"kv_heads", test.page.kv_heads},
                       {"head_dim", test.page.head_dim},
                       {"group_size", test.group_size},
                       {"max_tokens", test.max_pages() * kPageTokens},
                       {"total_tokens", int64_t{test.total_pages()} * kPageTokens},
                       {"tail_tokens", test.tail_tokens},
                       {"queries", test.queries}};
  return measurement;
}

}  // namespace turbokv::bench
