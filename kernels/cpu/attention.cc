#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/attention_head.h"

namespace turbokv::cpu {
namespace {

absl::StatusOr<std::vector<PlacedPage>> PlacePages(
    const AttentionShape& shape, absl::Span<const absl::Span<const uint8_t>> pages) {
  std::vector<PlacedPage> placed;
  placed.reserve(pages.size());
  int64_t first_token = 0;
  for (size_t i = 0; i < pages.size(); ++i) {
    const absl::StatusOr<PageView> page = ParsePage(pages[i]);
    if (!page.ok()) {
      return absl::Status(page.status().code(),
                          absl::StrCat("page ", i, ": ", page.status().message()));
    }
    const PageShape& page_shape = page->layout.shape;
    if (page_shape.kv_heads != shape.kv_heads || page_shape.head_dim != shape.head_dim) {
      return absl::InvalidArgumentError(absl::StrCat(
          "page ", i, " has ", page_shape.kv_heads, " KV heads of head_dim ", page_shape.head_dim,
          "; the attention has ", shape.kv_heads, " of ", shape.head_dim));
    }
    placed.push_back({*page, first_token});
    first_token += page->header.tokens;
  }
  return placed;
}

// The pages from the first to the last that some query sees.
absl::Span<const PlacedPage> VisiblePages(const std::vector<PlacedPage>& pages, int64_t tokens,
                                          const AttentionOptions& options,
                                          const SequenceKv& sequence,
                                          const AttentionQueries& queries) {
  TokenRange seen{tokens, 0};
  for (int64_t position : queries.positions) {
    const TokenRange visible = VisibleTokens(options, sequence.first_position, tokens, position);
    if (visible.empty()) continue;
    seen = {std::min(seen.begin, visible.begin), std::max(seen.end, visible.end)};
  }
  const auto begin = std::find_if(pages.begin(), pages.end(), [&](const PlacedPage& page) {
    return page.first_token + page.page.header.tokens > seen.begin;
  });
  const auto end = std::find_if(
      begin, pages.end(), [&](const PlacedPage& page) { return page.first_token >= seen.end; });
  return absl::MakeConstSpan(pages).subspan(begin - pages.begin(), end - begin);
}

// Ranges of pages that the work of one KV head is cut into: two tasks a thread balance the load.
size_t RangeCount(size_t pages, int kv_heads, const ThreadPool* pool) {
  constexpr size_t kMinPagesOfRange = 4;
  if (pool == nullptr) return 1;
  const size_t tasks = 2 * (static_cast<size_t>(pool->size()) + 1);
  const size_t wanted = (tasks + kv_heads - 1) / kv_heads;
  return std::clamp<size_t>(pages / kMinPagesOfRange, 1, wanted);
}

// Merges the parts of one row, adds the sink, and writes the result.
void MergeRow(absl::Span<const PartialAttention> parts, int row, int head_dim, double sink,
              float* out, float* lse) {
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  double largest = sink;
  for (const PartialAttention& part : parts) {
    largest = std::max(largest, double{part.largest[row]});
  }
  std::fill(out, out + head_dim, 0.0f);
  if (lse != nullptr) *lse = static_cast<float>(kNone);
  if (largest == kNone) return;
  double sum = std::exp(sink - largest);
  for (const PartialAttention& part : parts) {
    sum += part.weight[row] * std::exp(part.largest[row] - largest);
  }
  for (const PartialAttention& part : parts) {
    const double factor = std::exp(part.largest[row] - largest) / sum;
    const float* values = part.values.data() + static_cast<size_t>(row) * head_dim;
    for (int c = 0; c < head_dim; ++c) out[c] += static_cast<float>(factor * values[c]);
  }
  if (lse != nullptr) *lse = static_cast<float>(largest + std::log(sum));
}

void MergeHead(const AttentionShape& shape, const AttentionOptions& options, int kv_head,
               absl::Span<const PartialAttention> parts, const AttentionQueries& queries) {
  const int group_heads = shape.q_heads / shape.kv_heads;
  const int rows = static_cast<int>(queries.positions.size()) * group_heads;
  for (int row = 0; row < rows; ++row) {
    const int q_head = kv_head * group_heads + row % group_heads;
    const size_t index = static_cast<size_t>(row / group_heads) * shape.q_heads + q_head;
    const double sink = options.sink_logits.empty() ? -std::numeric_limits<double>::infinity()
                                                    : options.sink_logits[q_head];
    MergeRow(parts, row, shape.head_dim, sink, queries.out + index * shape.head_dim,
             queries.lse == nullptr ? nullptr : queries.lse + index);
  }
}

}  // namespace

absl::Status DecodeAttention(const AttentionShape& shape, const AttentionOptions& options,
                             const SequenceKv& sequence, const AttentionQueries& queries,
                             ThreadPool* pool) {
  TURBOKV_RETURN_IF_ERROR(ValidateAttention(shape, options, sequence, queries));
  TURBOKV_ASSIGN_OR_RETURN(const std::vector<PlacedPage> all_pages,
                           PlacePages(shape, sequence.pages));
  const int64_t page_tokens =
      all_pages.empty() ? 0 : all_pages.back().first_token + all_pages.back().page.header.tokens;
  const int64_t tokens = page_tokens + sequence.tail.tokens;
  const absl::Span<const PlacedPage> pages =
      VisiblePages(all_pages, tokens, options, sequence, queries);
  const size_t ranges = RangeCount(pages.size(), shape.kv_heads, pool);

  std::vector<PartialAttention> parts(shape.kv_heads * ranges);
  ParallelFor(pool, parts.size(), [&](size_t task) {
    const size_t range = task % ranges;
    HeadAttention head(shape, options, sequence, queries, tokens, static_cast<int>(task / ranges));
    const size_t end = pages.size() * (range + 1) / ranges;
    for (size_t i = pages.size() * range / ranges; i < end; ++i) {
      head.AddPage(pages[i], i + 1 < end ? &pages[i + 1].page : nullptr);
    }
    if (range + 1 == ranges) head.AddTail(sequence.tail, page_tokens);
    parts[task] = head.Finish();
  });
  for (int kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
    MergeHead(shape, options, kv_head, absl::MakeConstSpan(parts).subspan(kv_head * ranges, ranges),
              queries);
  }
  return absl::OkStatus();
}

}  // namespace turbokv::cpu
