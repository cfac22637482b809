#include "client/nccl/transfer_queue.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace turbokv {

size_t NcclTransfer::bytes() const {
  size_t bytes = 0;
  for (const NcclPiece& piece : pieces) bytes += piece.bytes;
  return bytes;
}

std::string NcclTransfer::Describe() const {
  return absl::StrCat("transfer ", sequence, " (",
                      direction == NcclDirection::kSend ? "send, " : "receive, ", pieces.size(),
                      " pieces, ", bytes(), " bytes)");
}

absl::Status TransferQueue::Add(NcclTransfer transfer, absl::Time now) {
  if (transfer.pieces.size() > kMaxTransferPieces) {
    return absl::InvalidArgumentError(
        absl::StrCat(transfer.Describe(), ": at most ", kMaxTransferPieces, " pieces are allowed"));
  }
  for (size_t i = 0; i < transfer.pieces.size(); ++i) {
    if (transfer.pieces[i].device != nullptr && transfer.pieces[i].bytes > 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        transfer.Describe(), ": piece ", i, " has ", transfer.pieces[i].bytes, " bytes at ",
        absl::Hex(reinterpret_cast<uintptr_t>(transfer.pieces[i].device)),
        "; expected an address and at least 1 byte"));
  }
  if (transfer.sequence < next_ || waiting_.contains(transfer.sequence)) {
    return absl::AlreadyExistsError(absl::StrCat(
        transfer.Describe(), ": the number was used before; the next free one is ", NextFree()));
  }
  if (waiting_.size() >= kMaxQueuedTransfers) {
    return absl::ResourceExhaustedError(absl::StrCat(transfer.Describe(), ": ", waiting_.size(),
                                                     " transfers wait; the limit is ",
                                                     kMaxQueuedTransfers));
  }
  const uint64_t sequence = transfer.sequence;
  waiting_.emplace(sequence, std::move(transfer));
  UpdateGap(now);
  return absl::OkStatus();
}

std::optional<NcclTransfer> TransferQueue::Next(absl::Time now) {
  const auto first = waiting_.begin();
  if (first == waiting_.end() || first->first != next_) return std::nullopt;
  NcclTransfer transfer = std::move(first->second);
  waiting_.erase(first);
  ++next_;
  gap_since_.reset();
  UpdateGap(now);
  return transfer;
}

uint64_t TransferQueue::NextFree() const {
  return waiting_.empty() ? next_ : std::max(next_, waiting_.rbegin()->first + 1);
}

std::string TransferQueue::DescribeGap() const {
  return absl::StrCat("transfer ", next_, " is missing; ", waiting_.size(),
                      " later ones wait, the first of them ",
                      waiting_.empty() ? next_ : waiting_.begin()->first);
}

std::vector<NcclTransfer> TransferQueue::TakeAll() {
  std::vector<NcclTransfer> all;
  all.reserve(waiting_.size());
  for (auto& [sequence, transfer] : waiting_) all.push_back(std::move(transfer));
  waiting_.clear();
  gap_since_.reset();
  return all;
}

void TransferQueue::UpdateGap(absl::Time now) {
  if (waiting_.empty() || waiting_.begin()->first == next_) {
    gap_since_.reset();
  } else if (!gap_since_) {
    gap_since_ = now;
  }
}

}  // namespace turbokv
