// What is measured. Names are stable: goals and baselines refer to them (report.py).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/format/page_layout.h"

namespace turbokv::bench {

// Decode attention of a batch of sequences.
struct AttentionCase {
  std::string name;
  PageShape page;
  int group_size = 8;               // query heads a KV head
  std::vector<int> sequence_pages;  // of each sequence
  int tail_tokens = 0;              // of each sequence, bf16
  int queries = 1;                  // of each sequence

  int batch() const { return static_cast<int>(sequence_pages.size()); }
  int total_pages() const;
  int max_pages() const;
  // "8x8x131072/d128/g8": batch x KV heads x packed tokens, head_dim, group size. Baselines of the
  // same shape have the same key. Empty for what they do not do: unequal lengths, tails, more than
  // one query.
  std::string ShapeKey() const;
};

std::vector<AttentionCase> AttentionCases(bool smoke);

enum class Direction { kEncode, kDequantize };

// bf16 K and V in NHD order into pages, or back.
struct TranscodeCase {
  std::string name;
  Direction direction;
  PageShape page;
  int pages = 0;
};

std::vector<TranscodeCase> TranscodeCases(bool smoke);

}  // namespace turbokv::bench
