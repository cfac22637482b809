// The two products of attention on packed codes. Internal to kernels/cpu.
//
// Rows are (query, query head) pairs that share one KV head. Both kernels work on rows in steps of
// kRowStep, so buffers of more than one row are padded to a multiple of it (PaddedRows).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/format/codec.h"
#include "kernels/format/tile.h"

namespace turbokv::cpu {

inline constexpr int kRowStep = 4;

constexpr int PaddedRows(int rows) {
  return rows == 1 ? 1 : (rows + kRowStep - 1) / kRowStep * kRowStep;
}

// One tensor's codes in a slice.
struct PackedCodes {
  Codec codec;
  const uint8_t* codes;
  int channel_tiles;    // padded_dim / 32
  int tiles_per_scale;  // channel tiles that share a scale: 1, 2, 4 or all
  int token_tiles;      // 32-token blocks that hold tokens, 1..4

  int scales() const { return (channel_tiles + tiles_per_scale - 1) / tiles_per_scale; }
};

// dots[row][scale][128]: sum over the scale's channels of code x q, tokens in tile order.
// q is [row][padded_dim] in tile order.
void ScoreDots(const PackedCodes& k, const float* q, int rows, float* dots);

// Sums of V by tile lane, [row][channel tile][n-tile][32 lanes]: lane 4g + t of n-tile n holds part
// t of channel 8n + g (the parts are added once, at the end).
constexpr size_t ValueSumsSize(int padded_dim) { return size_t{4} * padded_dim; }

// sums = sums x rescale[row] + codes x weights. weights is [row][scale][128], tokens in tile order.
void AccumulateValues(const PackedCodes& v, const float* weights, const float* rescale, int rows,
                      float* sums);

}  // namespace turbokv::cpu
