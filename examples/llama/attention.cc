#include "examples/llama/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "examples/llama/blas.h"

namespace turbokv::examples {
namespace {

// Softmax of the first `visible` scores; the others become 0.
void SoftmaxRow(float* scores, int visible, int columns) {
  const float largest = *std::max_element(scores, scores + visible);
  float sum = 0;
  for (int j = 0; j < visible; ++j) {
    scores[j] = std::exp(scores[j] - largest);
    sum += scores[j];
  }
  const float inverse = 1.0f / sum;
  for (int j = 0; j < visible; ++j) scores[j] *= inverse;
  std::fill(scores + visible, scores + columns, 0.0f);
}

}  // namespace

void AttendRows(const LlamaConfig& config, const LayerBatch& batch, const DenseKv& kv,
                int first_row, int rows) {
  const int keys = first_row + rows;
  const int dim = config.head_dim;
  const int group = config.q_heads / config.kv_heads;
  std::vector<float> scores(static_cast<size_t>(rows) * keys);
  for (int head = 0; head < config.q_heads; ++head) {
    const size_t q_offset = static_cast<size_t>(first_row) * config.q_dim() + head * dim;
    const size_t kv_offset = static_cast<size_t>(head / group) * dim;
    MultiplyTransposed(rows, keys, dim, config.softmax_scale(),
                       {batch.q + q_offset, config.q_dim()}, {kv.k + kv_offset, config.kv_dim()},
                       scores.data(), keys);
    for (int row = 0; row < rows; ++row) {
      SoftmaxRow(scores.data() + static_cast<size_t>(row) * keys, first_row + row + 1, keys);
    }
    Multiply(rows, dim, keys, {scores.data(), keys}, {kv.v + kv_offset, config.kv_dim()},
             batch.out + q_offset, config.q_dim());
  }
}

absl::Status PromptAttention::Attend(const LayerBatch& batch) {
  if (batch.first_position != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("exact prompt attention begins at position 0, not ", batch.first_position));
  }
  if (on_layer_) {
    TURBOKV_RETURN_IF_ERROR(
        on_layer_(batch.layer, NhdView(ValueType::kFp32, batch.k, batch.v, batch.tokens,
                                       config_.kv_heads, config_.head_dim)));
  }
  for (int row = 0; row < batch.tokens; row += kRowsPerStep) {
    AttendRows(config_, batch, {batch.k, batch.v}, row, std::min(kRowsPerStep, batch.tokens - row));
  }
  return absl::OkStatus();
}

}  // namespace turbokv::examples
