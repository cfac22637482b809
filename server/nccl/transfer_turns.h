// Whose turn it is on a channel to take memory for a transfer.
//
// Transfers run in the order of their numbers. If a later one could take the last free buffer while
// an earlier one waits for it, both would wait for ever: so buffers are taken in that order, too.
#pragma once

#include <cstdint>
#include <functional>
#include <set>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace turbokv {

// Threads: any.
class TransferTurns {
 public:
  // Waits until all numbers below `sequence` have passed. INVALID_ARGUMENT: it has passed itself.
  // DEADLINE_EXCEEDED names the number that is missing. What `cancelled` returns, once that is not
  // OK: it is asked every 20 ms, without locks held.
  absl::Status Wait(uint64_t sequence, absl::Time deadline,
                    const std::function<absl::Status()>& cancelled);
  // `sequence` has its memory, or needs none. Without effect if it has passed before.
  void Pass(uint64_t sequence);

 private:
  Mutex mutex_;
  CondVar changed_;
  uint64_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  std::set<uint64_t> passed_ ABSL_GUARDED_BY(mutex_);  // beyond next_
};

}  // namespace turbokv
