// Attention of all queries of one KV head over a range of pages, and over the tail.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/encode_kernels.h"
#include "kernels/format/page_header.h"

namespace turbokv::cpu {

// What attention over a part of the tokens amounts to; parts merge by their largest scores.
struct PartialAttention {
  // Of each row (query, then query head of the KV head): the largest score, -infinity where no
  // token was visible; the sum of exp(score - largest); and [head_dim] sums of
  // exp(score - largest) x V.
  std::vector<float> largest;
  std::vector<double> weight;
  std::vector<float> values;
};

// A page and the offset of its first token in the sequence.
struct PlacedPage {
  PageView page;
  int64_t first_token;
};

// Tokens [begin, end), counted from a sequence's (or a page's) first.
struct TokenRange {
  int64_t begin = 0;
  int64_t end = 0;

  bool empty() const { return begin >= end; }
};

// What a query at `position` sees of a sequence of `tokens` tokens.
TokenRange VisibleTokens(const AttentionOptions& options, int64_t first_position, int64_t tokens,
                         int64_t position);

class HeadAttention {
 public:
  // All arguments are borrowed; `tokens` are those of the whole sequence.
  HeadAttention(const AttentionShape& shape, const AttentionOptions& options,
                const SequenceKv& sequence, const AttentionQueries& queries, int64_t tokens,
                int kv_head);

  // `next`: the page that comes after, null for none; its first bytes are fetched meanwhile.
  void AddPage(const PlacedPage& placed, const PageView* next);
  // `first_token`: the offset of the tail's first token in the sequence.
  void AddTail(const KvView& tail, int64_t first_token);

  PartialAttention Finish();

 private:
  // Sums of V in one domain, scaled by exp(-largest) of the row when they were last added to.
  struct ValueSums {
    int dim = 0;
    std::vector<float> sums;     // [padded rows][size of a row]
    std::vector<float> largest;  // [padded rows]
  };
  bool FindVisible(int64_t first_token, int tokens);
  const float* Query(bool rotated) const { return (rotated ? q_rotated_ : q_plain_).data(); }
  void ScorePage(const PageView& page, int count);
  // What the page's K mean adds to every score of a row.
  void ScoreMean(const PageView& page);
  // Softmax of scores_, `count` a row; returns whether any weight is left.
  bool UpdateSoftmax(int count, bool tile_order);
  void AddPageValues(const PageView& page, const PageView* next, int count);
  void Rescale(ValueSums& target);
  // Whether this page's scores (or V's sum) must be computed without rounding to 16 bits.
  bool NeedsExactScores(int scale_count, int count) const;
  bool NeedsExactValues(const std::vector<WeightNorms>& norms);
  void AddTailBlock(const HeadSource& k, const HeadSource& v, int64_t first_token);
  void TakeSums(const ValueSums& from, int row, float* sums) const;

  const AttentionShape& shape_;
  const AttentionOptions& options_;
  const int kv_head_;
  const HeadGroups groups_;
  const int rows_;
  const int padded_rows_;
  std::vector<TokenRange> visible_in_sequence_;  // [rows]

  // Queries times softmax_scale: as given [rows][head_dim]; unrotated and rotated in tile order
  // [padded rows][padded_dim]; and the sums of each rotated group [rows][2].
  std::vector<float> q_;
  std::vector<float> q_plain_;
  std::vector<float> q_rotated_;
  std::vector<float> q_sums_;
  // Ranges of rounding, [padded rows][group], and the largest.
  std::vector<float> q_ranges_;
  float largest_q_range_ = 0;

  // The softmax's state.
  std::vector<float> largest_;  // [rows]
  std::vector<double> weight_;  // [rows]
  ValueSums rotated_, plain_, exact_;
  std::vector<float> offsets_;  // [padded rows][2]: sums of intN minima, scaled like rotated_
  // Of rotated_, per row and scaled like it: the squares' sum of the weights that went in, and the
  // squared error that rounding them has made so far.
  std::vector<float> squared_weights_;
  std::vector<float> squared_errors_;

  // Of the block of tokens that is worked on.
  std::vector<TokenRange> visible_;   // [rows], from the block's first token
  std::vector<float> biases_;         // [rows]: what K means add to scores
  std::vector<float> block_largest_;  // [rows]: of scores_
  std::vector<WeightNorms> norms_;    // [rows]: of weights_
  std::vector<float> weight_ranges_;  // [padded rows][scale]
  std::vector<float> dots_;           // [padded rows][scale][128]
  std::vector<float> scores_;         // [rows][128]; weights after UpdateSoftmax
  std::vector<float> weights_;        // [padded rows][scale][128], V's scales included
  std::vector<float> rescale_;        // [padded rows]
  std::vector<float> values_;         // [128][head_dim] of the tail
  float scales_[kMaxHeadDim / kScaleBlockChannels * kPageTokens];
  float minima_[kMaxGroups * kPageTokens];
};

}  // namespace turbokv::cpu
