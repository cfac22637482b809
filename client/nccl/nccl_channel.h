// A channel between the GPU of the service (rank 0) and the GPU of one peer (rank 1): runs of
// device memory go either way over NCCL, in an order that both ends agree on elsewhere (gRPC).
//
//   NcclChannelOptions options{.api = api, .streams = CudaStreamOps(), .unique_id = id, .rank = 1,
//                              .device_index = 0, .peer = "turbokvd at 10.0.0.1:7070"};
//   TURBOKV_ASSIGN_OR_RETURN(auto channel, NcclChannel::Connect(options));
//   channel->Enqueue(sequence, NcclDirection::kReceive, pieces, [](const absl::Status& s) {...});
//
// Invariants
//   1. One thread, the channel's own, makes every call to NCCL and to the stream.
//   2. Transfer n is launched after transfer n - 1, at both ends; several may be under way on the
//      stream. Both ends give the same sizes, piece by piece.
//   3. The first thing that goes wrong (an error of NCCL or of the device, a transfer that takes
//      longer than its timeout, a gap in the sequence, Abort) ends the channel for good: the
//      communicator is aborted, every transfer gets UNAVAILABLE with the peer and the reason, and
//      the owner makes a new channel.
//   4. `done` runs once for every accepted transfer, and only when the device no longer touches its
//      memory. The one exception is told by INTERNAL: the device did not let go within
//      kAbortGrace; that memory must not be used again.
//
// A peer that dies is not always noticed by NCCL: between GPUs of one host nothing is. Whoever
// knows (the gRPC stream that goes with the channel) calls Abort; the timeout is the last resort.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/nccl/nccl_api.h"
#include "client/nccl/nccl_communicator.h"
#include "client/nccl/stream_ops.h"

namespace turbokv {

// How long the device gets to let go of an aborted transfer, and a channel's thread to end.
inline constexpr absl::Duration kAbortGrace = absl::Seconds(4);

struct NcclChannelOptions {
  std::shared_ptr<const NcclApi> api;
  StreamOps* streams = nullptr;  // outlives the channel
  NcclUniqueId unique_id = {};
  int rank = 0;          // 0: the service; 1: the peer
  int device_index = 0;  // as CUDA counts
  std::string peer;      // for messages
  absl::Duration connect_timeout = absl::Seconds(30);
  // From when a transfer's turn has come to its end; also how long one may be missing.
  absl::Duration transfer_timeout = absl::Seconds(30);
  // Called once each, on the channel's thread, not to block: when it is connected (not if that
  // fails), and when it has ended, after the last `done`, with what status() is from then on.
  std::function<void()> on_connected;
  std::function<void(const absl::Status&)> on_ended;
};

using NcclDone = std::function<void(const absl::Status&)>;

// Threads: any. The last owner may also let go inside a callback.
class NcclChannel {
 public:
  // Returns at once; transfers may be enqueued and begin once it is connected.
  static std::unique_ptr<NcclChannel> Start(NcclChannelOptions options);
  // Start, and waits for the peer. UNAVAILABLE names the peer and the timeout.
  static absl::StatusOr<std::unique_ptr<NcclChannel>> Connect(NcclChannelOptions options);

  // Aborts, and waits for the channel's thread, at most kAbortGrace and a second.
  ~NcclChannel();

  NcclChannel(const NcclChannel&) = delete;
  NcclChannel& operator=(const NcclChannel&) = delete;

  // Runs in its turn. Numbers begin at 0 and leave nothing out: a transfer that was agreed on and
  // then given up is enqueued, at both ends, without pieces. The memory is ready to be read or
  // written when this is called, and stays so until `done`, which runs on the channel's thread and
  // must not block. Errors as TransferQueue::Add, or what ended the channel; then `done` is not
  // called.
  absl::Status Enqueue(uint64_t sequence, NcclDirection direction,
                       absl::Span<const NcclPiece> pieces, NcclDone done);
  // Enqueue with the next free number, for ends that agree by doing the same in the same order.
  absl::Status Send(absl::Span<const NcclPiece> pieces, NcclDone done);
  absl::Status Receive(absl::Span<const NcclPiece> pieces, NcclDone done);

  // OK while the channel connects or works; what ended it, afterwards.
  absl::Status status() const;
  bool connected() const;
  // Whether its thread has nothing left to do: letting go of it then takes no time.
  bool ended() const;
  // Waits until it is connected. UNAVAILABLE: it ended first; DEADLINE_EXCEEDED.
  absl::Status WaitConnected(absl::Time deadline);
  // Waits until no transfer is left. What ended the channel, or DEADLINE_EXCEEDED: it goes on.
  absl::Status Wait(absl::Time deadline);

  // Ends the channel; `reason` is for the message. Returns at once: nothing more is accepted, and
  // what was is told as soon as the device has let go.
  void Abort(absl::string_view reason);
  // Ends the channel in order, once all transfers of both ends have finished: status() is then
  // CANCELLED. A peer that does not do the same within `timeout` is not waited for longer. Waits:
  // not for callbacks.
  void Close(absl::Duration timeout);

 private:
  class Core;
  explicit NcclChannel(std::shared_ptr<Core> core);
  absl::Status EnqueueNext(NcclDirection direction, absl::Span<const NcclPiece> pieces,
                           NcclDone done);

  const std::shared_ptr<Core> core_;  // shared with the thread, which may outlive this
  std::thread thread_;
};

}  // namespace turbokv
