// What a channel's thread does: connects, launches transfers in their turn, sees them end.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "client/nccl/nccl_channel.h"
#include "client/nccl/transfer_queue.h"

namespace turbokv {

// The methods without a remark may be called from any thread.
class NcclChannel::Core {
 public:
  explicit Core(NcclChannelOptions options);

  // The thread: returns when the channel has ended.
  void Run();

  // Without a number: the next free one.
  absl::Status Enqueue(std::optional<uint64_t> sequence, NcclTransfer transfer);
  absl::Status status() const;
  bool connected() const;
  absl::Status WaitConnected(absl::Time deadline);
  absl::Status WaitIdle(absl::Time deadline);
  // Waits for the end of Run; false: it has not come by then.
  bool WaitEnded(absl::Time deadline);
  void Abort(absl::string_view reason);
  void CloseBy(absl::Time deadline);
  const std::string& peer() const { return options_.peer; }

 private:
  struct InFlight {
    NcclTransfer transfer;
    uint64_t mark = 0;
  };

  // All of these are for the thread. An error ends the channel.
  absl::Status Open();
  absl::Status Serve();
  absl::Status LaunchReady();
  absl::Status Launch(NcclTransfer transfer);
  absl::Status FinishReached();
  absl::Status CheckTimes();
  absl::Status CheckAborted();
  // Waits for what was begun on the communicator.
  absl::Status AwaitProgress(absl::Time deadline, absl::string_view what);
  // True once Close was called and everything has finished.
  bool ReadyToClose();
  absl::Status CloseInOrder();
  void Pause();
  void Finish(NcclTransfer transfer, const absl::Status& status);
  void End(const absl::Status& cause);
  // Whether the device has let go of all memory.
  bool DrainStream();

  NcclChannelOptions options_;

  // The thread's own.
  std::unique_ptr<ChannelStream> stream_;
  std::unique_ptr<NcclCommunicator> communicator_;
  std::deque<InFlight> in_flight_;
  absl::Time front_since_;  // when the first of in_flight_ became the first
  absl::Duration pause_;
  bool moved_ = false;  // something happened since the last pause
  bool closed_in_order_ = false;

  mutable Mutex mutex_;
  CondVar wake_;     // for the thread
  CondVar changed_;  // for those who wait for it
  TransferQueue queue_ ABSL_GUARDED_BY(mutex_);
  size_t unfinished_ ABSL_GUARDED_BY(mutex_) = 0;
  // What ended it, or is about to (an abort that the thread has not seen yet).
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  bool connected_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Time> close_deadline_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv
