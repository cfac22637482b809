#include "server/nccl/transfer_lanes.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/format/page_header.h"

namespace turbokv {

absl::StatusOr<std::unique_ptr<TransferLanes>> TransferLanes::Create(
    Device* device, DevicePageIo* io, const TransferLaneOptions& options) {
  constexpr size_t kHeaderBytes = kMaxTransferPages * kPageHeaderBytes;
  if (options.max_transfer_bytes == 0 || options.max_transfer_bytes % kPageHeaderBytes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_transfer_bytes is ", options.max_transfer_bytes,
                     "; expected a positive multiple of ", kPageHeaderBytes));
  }
  auto lanes = absl::WrapUnique(new TransferLanes(io, options));
  TURBOKV_ASSIGN_OR_RETURN(lanes->ring_,
                           StagingRing::Create(device, options.max_transfer_bytes + kHeaderBytes,
                                               options.lanes, RingMemory::kDevice));
  for (uint32_t i = 0; i < options.lanes; ++i) {
    Parts parts;
    TURBOKV_ASSIGN_OR_RETURN(parts.headers, device->AllocatePinned(kHeaderBytes));
    TURBOKV_ASSIGN_OR_RETURN(parts.stream, device->MakeStream());
    lanes->parts_.push_back(std::move(parts));
  }
  return lanes;
}

TransferLanes::~TransferLanes() {
  // What is notified last gives lanes back.
  for (Parts& parts : parts_) parts.stream.reset();
}

absl::StatusOr<std::shared_ptr<TransferLanes::Lane>> TransferLanes::Acquire(
    absl::Time deadline, const std::function<bool()>& cancelled) {
  TURBOKV_ASSIGN_OR_RETURN(StagingRing::Slot slot, ring_->Acquire(deadline, cancelled));
  Parts* const parts = &parts_[slot.index()];
  return std::make_shared<Lane>(std::move(slot), parts, options_.max_transfer_bytes);
}

}  // namespace turbokv
