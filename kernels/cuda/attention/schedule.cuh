// Who works on what. All slices of the batch are numbered, and the numbers divided (division.cuh).
// So sequences of any lengths keep all warps equally busy, and nothing has to be planned on the
// host: lengths may change between replays of a CUDA graph.
#pragma once

#include "kernels/cuda/attention/division.cuh"
#include "kernels/cuda/attention/params.cuh"
#include "kernels/cuda/primitives/page_format.cuh"
#include "kernels/cuda/primitives/platform.cuh"

namespace turbokv::cuda {

struct PageRange {
  int begin;
  int end;
};

TURBOKV_DEVICE int QueryPosition(const BatchParams& batch, int sequence, int query) {
  if (batch.query_positions != nullptr) {
    // Beyond any token all positions are alike; sums with them must not overflow.
    constexpr int kLast = 1 << 30;
    const int position = batch.query_positions[sequence * batch.queries + query];
    return min(max(position, -1), kLast + kPageTokens * 2);
  }
  const int tail = batch.tail_tokens == nullptr ? 0 : batch.tail_tokens[sequence];
  return batch.packed_tokens[sequence] + tail - batch.queries + query;
}

// [begin, end) of the tokens that a query at `position` sees.
TURBOKV_DEVICE PageRange VisibleTokens(const BatchParams& batch, int position) {
  const int window_begin = batch.window_tokens == 0 ? 0 : position - batch.window_tokens + 1;
  return {max(0, window_begin), max(0, position + 1)};
}

// The full pages that some query of the sequence sees.
TURBOKV_DEVICE PageRange VisiblePages(const BatchParams& batch, int sequence) {
  PageRange tokens = VisibleTokens(batch, QueryPosition(batch, sequence, 0));
  for (int query = 1; query < batch.queries; ++query) {
    const PageRange more = VisibleTokens(batch, QueryPosition(batch, sequence, query));
    tokens = {min(tokens.begin, more.begin), max(tokens.end, more.end)};
  }
  const int packed = min(batch.packed_tokens[sequence] / kPageTokens, batch.max_pages);
  const int end = min(packed, (tokens.end + kPageTokens - 1) / kPageTokens);
  const int begin = min(tokens.begin / kPageTokens, end);
  return {begin, end};
}

// Entries of the sequence's list that are worked on.
TURBOKV_DEVICE PageRange ListedPages(const BatchParams& batch, const PageLists& lists,
                                     int sequence) {
  if (lists.counts != nullptr) return {0, lists.counts[sequence]};
  return VisiblePages(batch, sequence);
}

// A place in the numbering: the sequence that holds a number, and that sequence's first one.
struct SequenceStart {
  int sequence;
  int first_number;
};

TURBOKV_DEVICE int NumbersOf(const BatchParams& batch, const PageLists& lists, int units,
                             int sequence) {
  if (sequence >= batch.batch) return 0;
  const PageRange pages = ListedPages(batch, lists, sequence);
  return pages.begin == pages.end ? 0 : UnitNumbers(pages.end - pages.begin) * units;
}

// Sum over the warp's lanes up to and including this one.
TURBOKV_DEVICE int InclusiveSum(int value, int lane) {
#pragma unroll
  for (int step = 1; step < kWarpLanes; step *= 2) {
    const int below = __shfl_up_sync(~0u, value, step);
    if (lane >= step) value += below;
  }
  return value;
}

// How many numbers there are. Call by a whole warp.
TURBOKV_DEVICE int TotalNumbers(const BatchParams& batch, const PageLists& lists, int units,
                                int lane) {
  int total = 0;
  for (int first = 0; first < batch.batch; first += kWarpLanes) {
    const int sum = InclusiveSum(NumbersOf(batch, lists, units, first + lane), lane);
    total += __shfl_sync(~0u, sum, kWarpLanes - 1);
  }
  return total;
}

// The sequence that holds `number`, which is less than the total. Call by a whole warp.
TURBOKV_DEVICE SequenceStart FindSequence(const BatchParams& batch, const PageLists& lists,
                                          int units, int number, int lane) {
  int before = 0;
  for (int first = 0;; first += kWarpLanes) {
    const int own = NumbersOf(batch, lists, units, first + lane);
    const int sum = InclusiveSum(own, lane);
    const unsigned holders = __ballot_sync(~0u, number < before + sum);
    if (holders != 0) {
      const int holder = __ffs(holders) - 1;
      return {first + holder, before + __shfl_sync(~0u, sum - own, holder)};
    }
    before += __shfl_sync(~0u, sum, kWarpLanes - 1);
  }
}

// How many numbers are before `sequence`. Call by a whole warp.
TURBOKV_DEVICE int NumbersBefore(const BatchParams& batch, const PageLists& lists, int units,
                                 int sequence, int lane) {
  int total = 0;
  for (int first = 0; first < sequence; first += kWarpLanes) {
    const int own = first + lane < sequence ? NumbersOf(batch, lists, units, first + lane) : 0;
    total += __shfl_sync(~0u, InclusiveSum(own, lane), kWarpLanes - 1);
  }
  return total;
}

}  // namespace turbokv::cuda
