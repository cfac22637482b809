// Queries as the kernels want them: eight rows of one KV head, in every form that some codec needs
// (only those that the call needs are written), in the order of tensor-core fragments. Written by
// the prepare kernel, read by all others.
#pragma once

#include "kernels/cuda/attention/query_forms.cuh"
#include "kernels/cuda/primitives/page_format.cuh"
#include "kernels/cuda/primitives/platform.cuh"

namespace turbokv::cuda {

inline constexpr int kTileRows = 8;  // rows of one A operand

// All scores are in units of log 2: q is multiplied by softmax_scale x log2(e) first.
struct QueryRow {
  float rotated_scale;    // what 1 in `rotated` stands for; at least kSmallestScale
  float plain_scale;      // ... in `plain`
  float pair_scale;       // ... in `fp16` and `bf16`, a power of two
  float rotated_sums[2];  // of each rotated group's integers
  int visible_begin;      // tokens that the row sees: [begin, end)
  int visible_end;
};

template <int kHeadDim>
struct QueryBlock {
  static constexpr int kTiles = kHeadDim / kTileChannels;
  Words4 rotated[kTiles][kWarpLanes];  // 16-bit integers of rotated q, in two bytes
  Words4 plain[kTiles][kWarpLanes];    // ... of q as given
  Words4 fp16[kTiles][2][kWarpLanes];  // q as a sum of two fp16, per half tile
  Words4 bf16[kTiles][2][kWarpLanes];  // ... of two bf16
  QueryRow rows[kTileRows];            // the prepare kernel copies members by their place
};

// Scales are at least this, the smallest normal float.
inline constexpr float kSmallestScale = 1.17549435e-38f;

// Largest 16-bit number whose balanced bytes both fit: 127 x 256 + 127.
inline constexpr int kLargestInteger = 32639;
inline constexpr float kLargestInt16 = kLargestInteger;

}  // namespace turbokv::cuda
