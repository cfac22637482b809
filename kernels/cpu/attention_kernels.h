// The two products of attention on packed codes. Internal to kernels/cpu.
//
// Rows are (query, query head) pairs that share one KV head. Both kernels work on rows in steps of
// kRowStep, so buffers of more than one row are padded to a multiple of it (PaddedRows).
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/format/codec.h"
#include "kernels/format/head_groups.h"
#include "kernels/format/tile.h"

namespace turbokv::cpu {

inline constexpr int kRowStep = 4;

constexpr int PaddedRows(int rows) {
  return rows == 1 ? 1 : (rows + kRowStep - 1) / kRowStep * kRowStep;
}

// Rounding to 16 bits. A row's range is its largest magnitude or, where the 32-bit sum of products
// with one part t of the lanes would overflow, what RangeOfPart says of the part's magnitudes.
inline constexpr float kLargestRounded = 32767;
constexpr float RangeOfPart(float sum_of_magnitudes) { return sum_of_magnitudes / 8; }

// One tensor's codes in a slice.
struct PackedCodes {
  Codec codec;
  const uint8_t* codes;
  int channel_tiles;    // padded_dim / 32
  int tiles_per_scale;  // channel tiles that share a scale: 1, 2, 4 or all
  int token_tiles;      // 32-token blocks that hold tokens, 1..4
  // What will be read after these codes, fetched into the cache meanwhile: slices are too short for
  // the hardware to see where they lead. May be empty.
  absl::Span<const uint8_t> next;
  // Weights may be rounded to 16 bits (integer_dot-inl.h), those of a row and scale to multiples of
  // ranges[row][scale] / kLargestRounded. Null: they may not.
  const float* ranges = nullptr;

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

// The first `count` (a multiple of 32) of a row of fp16 scales times `factor`, in tile order, kept
// finite.
void LoadTileScales(const uint8_t* fp16_scales, float factor, int count, float* scales);

// What turns dots into scores:
//   score = cap(sum over scales s of (dots[s] x scales[s] + q_sums[s] x minima[s]) + bias)
// Everything but q_sums is [scale][128] in the same order of tokens.
struct ScoreTerms {
  const float* dots;
  const float* scales;
  const float* minima;  // null: none
  const float* q_sums;
  int scale_count;
  float bias;
  float soft_cap;  // 0: none
};
// Returns the largest.
float CombineScores(const ScoreTerms& terms, int count, float* scores);

float LargestScore(const float* scores, int count);

// weights = exp(score - largest), or 0 below `threshold`. Scores may be -infinity; `largest` is
// finite and not below any of them.
struct WeightSums {
  float all;  // dropped ones included
  bool kept_any;
};
WeightSums ExpWeights(const float* scores, int count, float largest, float threshold,
                      float* weights);

// products = weights x scales.
struct WeightNorms {
  float range;    // of rounding
  float squares;  // their sum
};
WeightNorms MultiplyWeights(const float* weights, const float* scales, int count, float* products);

float Dot(const float* a, const float* b, int count);

// dots[t] = values[t][head_dim] . q, and sums = sums x rescale + sum of weights[t] x values[t].
void DotRows(const float* values, int tokens, int head_dim, const float* q, float* dots);
void AddWeightedRows(const float* values, int tokens, int head_dim, const float* weights,
                     float rescale, float* sums);

// sums[c] of a channel from its four parts (ValueSumsSize), in channel order.
void AddParts(const float* parts, int padded_dim, float* sums);

// y = s2 * H(s1 * x) / sqrt(n) of every group, in place, and the reverse.
void RotateRow(const HeadGroups& groups, float* values);
void UnrotateRow(const HeadGroups& groups, float* values);

}  // namespace turbokv::cpu
