// The pages of leased blocks that one fetch sends over its channel: verified on the GPU, gathered
// into a lane's memory and sent from there, while those of the next transfer are verified.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/nccl/outstanding_transfers.h"
#include "server/index/block_cache.h"
#include "server/ingest/page_run.h"
#include "server/nccl/channel_registry.h"
#include "server/nccl/transfer_lanes.h"
#include "server/telemetry/metrics.h"

namespace turbokv {

struct PageSenderOptions {
  ServiceChannel end;
  std::shared_ptr<TransferLanes> lanes;
  // How long a transfer may wait for its turn and for a lane.
  absl::Duration patience = absl::Seconds(30);
  std::function<bool()> cancelled;  // of the fetch; asked while waiting
  BlockCache* cache = nullptr;      // outlives this
  Metrics* metrics = nullptr;       // outlives the channel
};

// As NcclFetch in cache.proto. Untrusted.
struct TransferNumbers {
  uint64_t first_sequence = 0;
  uint32_t transfer_count = 0;
  uint32_t pages_per_transfer = 0;
};

struct SentTransfer {
  uint64_t sequence = 0;
  size_t bytes = 0;
};

// Used by one thread.
class PageSender {
 public:
  PageSender(PageSenderOptions options, const TransferNumbers& numbers);
  // Gives up the numbers that are left. What was sent goes on.
  ~PageSender();

  // `range` is not begun yet; its tail is not sent. INVALID_ARGUMENT: the numbers do not follow
  // from the range, or a transfer is too large. FAILED_PRECONDITION: blocks lie elsewhere.
  absl::Status Open(std::shared_ptr<const LeaseInfo> lease, const PageRun& range);

  // Sends the next transfer, for the peer to be told of; none is left: a transfer of no bytes.
  // DATA_LOSS names the layer and the block of a damaged page; the block is gone then.
  absl::StatusOr<SentTransfer> Next();

  // Waits until everything has been sent.
  absl::Status Wait() { return sends_.Wait(); }

  // After a failure that the peer may not learn of in time.
  void AbortChannel(absl::string_view reason) { options_.end.channel->Abort(reason); }

 private:
  using Lane = TransferLanes::Lane;
  // Consecutive pages of one layer in a transfer.
  struct Part {
    int layer = 0;
    int64_t first_page = 0;  // of the range's blocks
    std::vector<const uint8_t*> device_pages;
    size_t bytes = 0;
    DeviceVerdict verdict;
  };

  absl::Status CheckNumbers() const;
  absl::Status CheckPlaces() const;
  absl::Status ReadLayouts();
  int64_t page_count() const { return static_cast<int64_t>(layouts_count()) * blocks_; }
  size_t layouts_count() const { return static_cast<size_t>(end_layer_ - first_layer_); }
  const EntryRef& BlockAt(int64_t index) const { return lease_->blocks[first_block_ + index]; }
  std::vector<Part> NextParts() const;
  absl::StatusOr<std::shared_ptr<Lane>> AwaitLane();
  // Waits until the parts are in the lane's memory.
  absl::Status Gather(const Lane& lane, std::vector<Part>* parts) const;
  absl::Status Damaged(int layer, int64_t block) const;

  const PageSenderOptions options_;
  const TransferNumbers numbers_;
  std::shared_ptr<const LeaseInfo> lease_;
  int first_layer_ = 0;
  int end_layer_ = 0;
  int64_t first_block_ = 0;
  int64_t blocks_ = 0;
  std::vector<PageLayout> layouts_;  // by layer, from first_layer_ on
  int64_t next_page_ = 0;            // layer-major
  uint32_t next_transfer_ = 0;
  OutstandingTransfers sends_;
};

}  // namespace turbokv
