#include "server/nccl/transfer_turns.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

constexpr absl::Duration kCancellationPeriod = absl::Milliseconds(20);

}  // namespace

absl::Status TransferTurns::Wait(uint64_t sequence, absl::Time deadline,
                                 const std::function<absl::Status()>& cancelled) {
  while (true) {
    TURBOKV_RETURN_IF_ERROR(cancelled());
    const absl::Duration left = deadline - absl::Now();
    MutexLock lock(&mutex_);
    if (next_ < sequence && left > absl::ZeroDuration()) {
      changed_.wait_for(mutex_, absl::ToChronoNanoseconds(std::min(left, kCancellationPeriod)));
    }
    if (next_ == sequence) return absl::OkStatus();
    if (next_ > sequence || passed_.contains(sequence)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "transfer ", sequence, " was announced before; the next of the channel is ", next_));
    }
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(absl::StrCat("transfer ", sequence, " waits for transfer ",
                                                      next_, ", which was not announced in time"));
    }
  }
}

void TransferTurns::Pass(uint64_t sequence) {
  MutexLock lock(&mutex_);
  if (sequence < next_) return;
  passed_.insert(sequence);
  while (!passed_.empty() && *passed_.begin() == next_) {
    passed_.erase(passed_.begin());
    ++next_;
  }
  changed_.notify_all();
}

}  // namespace turbokv
