// The transfers of one call that have not finished, and what went wrong first.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "client/nccl/nccl_channel.h"

namespace turbokv {

// Threads: any. May go before its transfers: they go on.
class OutstandingTransfers {
 public:
  // NcclChannel::Enqueue; `then` (may be null) runs as its `done`.
  absl::Status Enqueue(NcclChannel* channel, uint64_t sequence, NcclDirection direction,
                       absl::Span<const NcclPiece> pieces, NcclDone then = nullptr);
  // Waits until all have finished. The first error of any, from then on.
  absl::Status Wait();

 private:
  struct State {
    Mutex mutex;
    CondVar changed;
    int outstanding ABSL_GUARDED_BY(mutex) = 0;
    absl::Status first_error ABSL_GUARDED_BY(mutex);
  };
  static void End(State* state, const absl::Status& status);

  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

// Uses numbers [first, end) up without a transfer: what both ends do with those that were agreed on
// and then given up. A channel that has ended needs none.
void GiveUpTransfers(NcclChannel* channel, uint64_t first, uint64_t end);

}  // namespace turbokv
