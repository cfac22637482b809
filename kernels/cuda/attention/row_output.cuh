// The result of one row, as one warp writes it.
#pragma once

#include "kernels/cuda/attention/params.cuh"
#include "kernels/cuda/attention/softmax.cuh"
#include "kernels/cuda/primitives/value_types.cuh"

namespace turbokv::cuda {

// What a row has gathered: value i of a lane is channel 32 i + lane, of V as given.
template <int kHeadDim>
struct RowSums {
  static constexpr int kCount = kHeadDim / kWarpLanes;
  float largest = kNoScore;
  float sum = 0.0f;  // of exp2(score - largest)
  float values[kCount] = {};

  // What was gathered becomes relative to a score that is at least as large.
  TURBOKV_DEVICE void RaiseLargest(float to) {
    const float keep = Exp2(largest - to);
    largest = to;
    sum *= keep;
#pragma unroll
    for (float& value : values) value *= keep;
  }
};

// Which row of the batch.
struct RowPlace {
  int sequence;
  int head;  // KV head
  int row;   // of the head: (query, query head of the KV head)
};

// Adds the learned sink and writes the row.
template <int kHeadDim>
TURBOKV_DEVICE void StoreRow(const OutputParams& output, const RowParams& rows, int queries,
                             const RowPlace& place, RowSums<kHeadDim>& sums, int lane) {
  const int q_heads = rows.kv_heads * rows.group;
  const int q_head = place.head * rows.group + place.row % rows.group;
  if (output.sink_logits != nullptr) {
    constexpr float kLog2E = 1.4426950408889634f;
    const float sink = output.sink_logits[q_head] * kLog2E;
    sums.RaiseLargest(fmaxf(sums.largest, sink));
    sums.sum += Exp2(sink - sums.largest);
  }
  const bool empty = sums.sum == 0.0f;
  const float inverse = empty ? 0.0f : 1.0f / sums.sum;
  const int query = place.row / rows.group;
  const int64_t out_row =
      (static_cast<int64_t>(place.sequence) * queries + query) * q_heads + q_head;
#pragma unroll
  for (int i = 0; i < RowSums<kHeadDim>::kCount; ++i) {
    StoreValue(output.out, output.value_type, out_row * kHeadDim + kWarpLanes * i + lane,
               sums.values[i] * inverse);
  }
  if (lane == 0 && output.lse != nullptr) {
    constexpr float kLn2 = 0.6931471805599453f;
    output.lse[out_row] = empty ? -Infinity() : kLn2 * sums.largest + logf(sums.sum);
  }
}

}  // namespace turbokv::cuda
