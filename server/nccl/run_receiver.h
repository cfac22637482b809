// The runs of pages that one store gets over its channel: received into a lane's memory, then
// encoded (or, if they are pages, checked and copied) into their blocks, while the next run is
// received.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ingest/store_session.h"
#include "server/nccl/channel_registry.h"
#include "server/nccl/transfer_lanes.h"
#include "server/telemetry/metrics.h"

namespace turbokv {

struct RunReceiverOptions {
  ServiceChannel end;
  std::shared_ptr<TransferLanes> lanes;
  // How long a run may wait for its turn and for a lane.
  absl::Duration patience = absl::Seconds(30);
  std::function<bool()> cancelled;            // of the store; asked while waiting
  std::shared_ptr<std::atomic<bool>> failed;  // set with the first error, on any thread
  Metrics* metrics = nullptr;                 // outlives the channel
};

// Used by one thread at a time.
class RunReceiver {
 public:
  explicit RunReceiver(RunReceiverOptions options);
  // Waits for what the device still writes to pages of the store, not for the peer. Transfers that
  // were announced and not received go on into the lanes' memory until the channel ends.
  ~RunReceiver();

  // Waits for the run's turn and a lane, then returns: the run is received in the background.
  // Errors: the first of any run so far; CANCELLED; DEADLINE_EXCEEDED: no turn, or no lane.
  absl::Status Receive(uint64_t sequence, DeviceRun run);

  // Waits until all runs are in their pages. The first error of any: UNAVAILABLE: the channel;
  // INVALID_ARGUMENT names the layer and the value or block that is to blame; DATA_LOSS: a page's
  // checksum; else the device's.
  absl::Status Wait();

  // As Wait, of what has gone wrong so far, without waiting for transfers.
  absl::Status Error();

  // After a failure, if a run was announced: the peer sends what nobody receives.
  void AbortChannel(absl::string_view reason);

  size_t max_run_bytes() const { return options_.lanes->max_transfer_bytes(); }

 private:
  class Runs;

  absl::StatusOr<std::shared_ptr<TransferLanes::Lane>> AwaitLane(uint64_t sequence);

  bool announced_ = false;
  const RunReceiverOptions options_;
  const std::shared_ptr<Runs> runs_;  // shared with callbacks
};

}  // namespace turbokv
