#include "client/nccl/channel_core.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/logging.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

// Enough to keep the stream busy while the thread looks away; less than the marks that are kept.
constexpr size_t kMaxInFlight = 4;
static_assert(kMaxInFlight + 1 < kMaxStreamMarks);

// The thread asks in growing intervals while something is under way, and rarely while nothing is.
constexpr absl::Duration kMinPause = absl::Microseconds(5);
constexpr absl::Duration kMaxPause = absl::Microseconds(200);
constexpr absl::Duration kIdlePause = absl::Milliseconds(50);
constexpr absl::Duration kConnectPause = absl::Microseconds(500);

}  // namespace

NcclChannel::Core::Core(NcclChannelOptions options)
    : options_(std::move(options)), pause_(kMinPause) {}

void NcclChannel::Core::Run() {
  absl::Status cause = Open();
  if (cause.ok()) {
    {
      MutexLock lock(&mutex_);
      connected_ = true;
    }
    changed_.notify_all();
    if (options_.on_connected) options_.on_connected();
    cause = Serve();
  }
  End(cause);
}

absl::Status NcclChannel::Core::Open() {
  const absl::Time deadline = absl::Now() + options_.connect_timeout;
  TURBOKV_ASSIGN_OR_RETURN(stream_, options_.streams->MakeStream(options_.device_index));
  TURBOKV_ASSIGN_OR_RETURN(
      communicator_, NcclCommunicator::Start(options_.api, options_.unique_id, options_.rank));
  return AwaitProgress(deadline, absl::StrCat("the peer did not connect within ",
                                              absl::FormatDuration(options_.connect_timeout)));
}

absl::Status NcclChannel::Core::Serve() {
  while (true) {
    moved_ = false;
    TURBOKV_RETURN_IF_ERROR(CheckAborted());
    TURBOKV_RETURN_IF_ERROR(LaunchReady());
    TURBOKV_RETURN_IF_ERROR(FinishReached());
    TURBOKV_RETURN_IF_ERROR(communicator_->Progress().status());
    TURBOKV_RETURN_IF_ERROR(CheckTimes());
    if (ReadyToClose()) return CloseInOrder();
    if (!moved_) Pause();
  }
}

absl::Status NcclChannel::Core::LaunchReady() {
  while (in_flight_.size() < kMaxInFlight) {
    std::optional<NcclTransfer> next;
    {
      MutexLock lock(&mutex_);
      next = queue_.Next(absl::Now());
    }
    if (!next) break;
    TURBOKV_RETURN_IF_ERROR(Launch(*std::move(next)));
  }
  return absl::OkStatus();
}

absl::Status NcclChannel::Core::Launch(NcclTransfer transfer) {
  const absl::Time now = absl::Now();
  if (in_flight_.empty()) front_since_ = now;
  moved_ = true;
  pause_ = kMinPause;
  // In in_flight_ before anything can fail, so that End finds it.
  in_flight_.push_back({std::move(transfer)});
  InFlight& launched = in_flight_.back();
  if (!launched.transfer.pieces.empty()) {
    TURBOKV_RETURN_IF_ERROR(communicator_->Launch(launched.transfer.direction,
                                                  launched.transfer.pieces, stream_->handle()));
    TURBOKV_RETURN_IF_ERROR(
        AwaitProgress(now + options_.transfer_timeout,
                      absl::StrCat(launched.transfer.Describe(), " was not launched within ",
                                   absl::FormatDuration(options_.transfer_timeout))));
  }
  TURBOKV_ASSIGN_OR_RETURN(launched.mark, stream_->Mark());
  return absl::OkStatus();
}

absl::Status NcclChannel::Core::FinishReached() {
  while (!in_flight_.empty()) {
    TURBOKV_ASSIGN_OR_RETURN(const bool reached, stream_->Reached(in_flight_.front().mark));
    if (!reached) break;
    NcclTransfer transfer = std::move(in_flight_.front().transfer);
    in_flight_.pop_front();
    front_since_ = absl::Now();
    moved_ = true;
    pause_ = kMinPause;
    Finish(std::move(transfer), absl::OkStatus());
  }
  return absl::OkStatus();
}

absl::Status NcclChannel::Core::CheckTimes() {
  const absl::Time now = absl::Now();
  if (!in_flight_.empty() && now - front_since_ > options_.transfer_timeout) {
    return absl::UnavailableError(absl::StrCat(in_flight_.front().transfer.Describe(),
                                               " did not finish within ",
                                               absl::FormatDuration(options_.transfer_timeout)));
  }
  MutexLock lock(&mutex_);
  if (queue_.gap_since() && now - *queue_.gap_since() > options_.transfer_timeout) {
    return absl::UnavailableError(absl::StrCat(queue_.DescribeGap(), "; it did not come within ",
                                               absl::FormatDuration(options_.transfer_timeout)));
  }
  if (close_deadline_ && now > *close_deadline_) {
    return absl::UnavailableError("transfers were still under way when the time to close was over");
  }
  return absl::OkStatus();
}

absl::Status NcclChannel::Core::CheckAborted() {
  MutexLock lock(&mutex_);
  return status_;
}

absl::Status NcclChannel::Core::AwaitProgress(absl::Time deadline, absl::string_view what) {
  absl::Duration pause = kMinPause;
  while (true) {
    TURBOKV_ASSIGN_OR_RETURN(const bool done, communicator_->Progress());
    if (done) return absl::OkStatus();
    TURBOKV_RETURN_IF_ERROR(CheckAborted());
    if (absl::Now() > deadline) return absl::UnavailableError(what);
    absl::SleepFor(pause);
    pause = std::min(2 * pause, kConnectPause);
  }
}

bool NcclChannel::Core::ReadyToClose() {
  MutexLock lock(&mutex_);
  return close_deadline_ && in_flight_.empty() && queue_.empty();
}

absl::Status NcclChannel::Core::CloseInOrder() {
  absl::Time deadline;
  {
    MutexLock lock(&mutex_);
    deadline = *close_deadline_;
  }
  TURBOKV_RETURN_IF_ERROR(communicator_->Finalize());
  TURBOKV_RETURN_IF_ERROR(AwaitProgress(deadline, "the peer did not close in time"));
  TURBOKV_RETURN_IF_ERROR(communicator_->Destroy());
  closed_in_order_ = true;
  return absl::CancelledError("closed");
}

void NcclChannel::Core::Pause() {
  MutexLock lock(&mutex_);
  if (!status_.ok()) return;
  if (in_flight_.empty()) {
    // Whoever adds work, aborts or closes wakes the thread; it asks for errors on its own.
    wake_.wait_for(mutex_, absl::ToChronoMicroseconds(close_deadline_ ? kMinPause : kIdlePause));
  } else {
    wake_.wait_for(mutex_, absl::ToChronoMicroseconds(pause_));
    pause_ = std::min(2 * pause_, kMaxPause);
  }
}

void NcclChannel::Core::Finish(NcclTransfer transfer, const absl::Status& status) {
  if (transfer.done) transfer.done(status);
  transfer.done = nullptr;  // with what it holds, before anybody learns that it has run
  {
    MutexLock lock(&mutex_);
    --unfinished_;
  }
  changed_.notify_all();
}

void NcclChannel::Core::End(const absl::Status& cause) {
  absl::Status status;
  std::vector<NcclTransfer> waiting;
  {
    MutexLock lock(&mutex_);
    if (status_.ok()) {
      const std::string message =
          absl::StrCat("NCCL channel to ", options_.peer, ": ", cause.message());
      status_ = closed_in_order_ ? absl::CancelledError(message) : absl::UnavailableError(message);
    }
    status = status_;
    waiting = queue_.TakeAll();
  }
  changed_.notify_all();
  if (communicator_ != nullptr && !closed_in_order_) communicator_->Abort();
  const bool released = DrainStream();
  while (!in_flight_.empty()) {
    NcclTransfer transfer = std::move(in_flight_.front().transfer);
    in_flight_.pop_front();
    absl::Status outcome = status;
    if (!released) {
      outcome = absl::InternalError(
          absl::StrCat(status.message(), "; the device did not let go of ", transfer.Describe(),
                       " within ", absl::FormatDuration(kAbortGrace)));
    }
    Finish(std::move(transfer), outcome);
  }
  for (NcclTransfer& transfer : waiting) Finish(std::move(transfer), status);
  communicator_.reset();
  stream_.reset();
  if (options_.on_ended) options_.on_ended(status);
  options_.on_ended = nullptr;
  options_.on_connected = nullptr;
  MutexLock lock(&mutex_);
  ended_ = true;
  changed_.notify_all();
}

bool NcclChannel::Core::DrainStream() {
  if (stream_ == nullptr || in_flight_.empty()) return true;
  const absl::Time deadline = absl::Now() + kAbortGrace;
  const absl::StatusOr<uint64_t> mark = stream_->Mark();
  // A device that reports errors from now on runs nothing more of this process.
  if (!mark.ok()) return true;
  while (true) {
    const absl::StatusOr<bool> reached = stream_->Reached(*mark);
    if (!reached.ok() || *reached) return true;
    if (absl::Now() > deadline) return false;
    absl::SleepFor(kMaxPause);
  }
}

absl::Status NcclChannel::Core::Enqueue(std::optional<uint64_t> sequence, NcclTransfer transfer) {
  {
    MutexLock lock(&mutex_);
    TURBOKV_RETURN_IF_ERROR(status_);
    if (close_deadline_) {
      return absl::CancelledError(
          absl::StrCat("NCCL channel to ", options_.peer, ": it is being closed"));
    }
    transfer.sequence = sequence ? *sequence : queue_.NextFree();
    TURBOKV_RETURN_IF_ERROR(queue_.Add(std::move(transfer), absl::Now()));
    ++unfinished_;
  }
  wake_.notify_one();
  return absl::OkStatus();
}

absl::Status NcclChannel::Core::status() const {
  MutexLock lock(&mutex_);
  return status_;
}

bool NcclChannel::Core::connected() const {
  MutexLock lock(&mutex_);
  return connected_ && status_.ok();
}

absl::Status NcclChannel::Core::WaitConnected(absl::Time deadline) {
  MutexLock lock(&mutex_);
  while (!connected_ && status_.ok()) {
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("NCCL channel to ", options_.peer, ": not connected yet"));
    }
    changed_.wait_until(mutex_, absl::ToChronoTime(deadline));
  }
  return status_;
}

absl::Status NcclChannel::Core::WaitIdle(absl::Time deadline) {
  MutexLock lock(&mutex_);
  while (unfinished_ > 0) {
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat("NCCL channel to ", options_.peer, ": ",
                                                      unfinished_, " transfers have not finished"));
    }
    changed_.wait_until(mutex_, absl::ToChronoTime(deadline));
  }
  return status_;
}

bool NcclChannel::Core::WaitEnded(absl::Time deadline) {
  MutexLock lock(&mutex_);
  while (!ended_) {
    if (absl::Now() >= deadline) return false;
    changed_.wait_until(mutex_, absl::ToChronoTime(deadline));
  }
  return true;
}

void NcclChannel::Core::Abort(absl::string_view reason) {
  {
    MutexLock lock(&mutex_);
    if (!status_.ok()) return;
    status_ = absl::UnavailableError(
        absl::StrCat("NCCL channel to ", options_.peer, ": aborted: ", reason));
  }
  wake_.notify_one();
  changed_.notify_all();
}

void NcclChannel::Core::CloseBy(absl::Time deadline) {
  {
    MutexLock lock(&mutex_);
    if (!close_deadline_) close_deadline_ = deadline;
  }
  wake_.notify_one();
}

}  // namespace turbokv
