// Encodes raw pages into the pool, and measures what encoding cost now and then.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "base/thread_pool.h"
#include "kernels/format/page_header.h"
#include "kernels/kv_view.h"
#include "server/telemetry/metrics.h"

namespace turbokv {

// Shared by all store streams. Threads: any.
class PageEncoder {
 public:
  // `sample_rate`: share of the pages that are decoded again and compared. `pool` and `metrics`
  // outlive this.
  PageEncoder(ThreadPool* pool, Metrics* metrics, double sample_rate);

  // Tail pages are exact and so not sampled.
  enum class Use : uint8_t { kBlock, kTail };

  // INVALID_ARGUMENT names tensor, layer, absolute token, head and channel of a NaN or infinity.
  absl::Status Encode(Use use, const PageLayout& layout, const PageIdentity& identity,
                      const KvView& kv, absl::Span<uint8_t> page);

  // Whether the next page is one of the share that is compared. Counts it.
  bool NextIsSampled();
  // Compares a page, in host memory, with what it was made of.
  void Sample(const KvView& kv, absl::Span<const uint8_t> page);

 private:
  // The pool where it has threads to spare, else null: dividing a page among threads that have
  // pages of their own (or among cores that also move the bytes) only costs switches between them.
  ThreadPool* HelpersFor(int pages_in_flight) const;
  ThreadPool* const pool_;
  Metrics* const metrics_;
  const uint64_t sample_period_;  // 0: never
  std::atomic<int> in_flight_{0};
  std::atomic<uint64_t> pages_{0};
  Mutex sampling_;  // one page at a time: a bound on memory
};

}  // namespace turbokv
