#include "client/nccl/outstanding_transfers.h"

#include <utility>

namespace turbokv {

absl::Status OutstandingTransfers::Enqueue(NcclChannel* channel, uint64_t sequence,
                                           NcclDirection direction,
                                           absl::Span<const NcclPiece> pieces, NcclDone then) {
  {
    MutexLock lock(&state_->mutex);
    ++state_->outstanding;
  }
  const absl::Status enqueued = channel->Enqueue(
      sequence, direction, pieces, [state = state_, then = std::move(then)](const absl::Status& s) {
        if (then) then(s);
        End(state.get(), s);
      });
  if (!enqueued.ok()) End(state_.get(), enqueued);
  return enqueued;
}

void OutstandingTransfers::End(State* state, const absl::Status& status) {
  MutexLock lock(&state->mutex);
  --state->outstanding;
  if (state->first_error.ok()) state->first_error = status;
  state->changed.notify_all();
}

absl::Status OutstandingTransfers::Wait() {
  MutexLock lock(&state_->mutex);
  while (state_->outstanding > 0) state_->changed.wait(state_->mutex);
  return state_->first_error;
}

void GiveUpTransfers(NcclChannel* channel, uint64_t first, uint64_t end) {
  for (uint64_t sequence = first; sequence < end; ++sequence) {
    if (!channel->Enqueue(sequence, NcclDirection::kSend, {}, nullptr).ok()) return;
  }
}

}  // namespace turbokv
