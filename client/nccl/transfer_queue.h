// Transfers that wait for their turn: both ends of a channel run them in the order of sequence
// numbers, whatever order they are announced in, so that every send meets its receive.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/nccl/nccl_communicator.h"

namespace turbokv {

// The most runs of memory in one transfer: NCCL launches a send for each, and slows down with many
// small ones. Gather what is more scattered.
inline constexpr size_t kMaxTransferPieces = 4096;
// The most transfers that wait.
inline constexpr size_t kMaxQueuedTransfers = 4096;

struct NcclTransfer {
  uint64_t sequence = 0;
  NcclDirection direction = NcclDirection::kSend;
  std::vector<NcclPiece> pieces;  // none: the number is used up, nothing is sent
  std::function<void(const absl::Status&)> done;

  size_t bytes() const;
  // "transfer 12 (send, 3 pieces, 4096 bytes)"
  std::string Describe() const;
};

// Not thread safe.
class TransferQueue {
 public:
  // INVALID_ARGUMENT   too many pieces; a piece without an address
  // ALREADY_EXISTS     the number is waiting already, or its turn is over
  // RESOURCE_EXHAUSTED  kMaxQueuedTransfers are waiting
  // On an error the transfer is dropped and `done` is not called.
  absl::Status Add(NcclTransfer transfer, absl::Time now);

  // The next in sequence, if it is here.
  std::optional<NcclTransfer> Next(absl::Time now);
  // The lowest number that nobody has taken.
  uint64_t NextFree() const;

  // When the next in sequence began to be missing while later ones wait; none: nothing is missing.
  std::optional<absl::Time> gap_since() const { return gap_since_; }
  // "transfer 3 is missing; 2 later ones wait, the first of them 5"
  std::string DescribeGap() const;

  bool empty() const { return waiting_.empty(); }
  // Everything that waits.
  std::vector<NcclTransfer> TakeAll();

 private:
  void UpdateGap(absl::Time now);

  uint64_t next_ = 0;
  std::map<uint64_t, NcclTransfer> waiting_;
  std::optional<absl::Time> gap_since_;
};

}  // namespace turbokv
