#include "client/nccl/nccl_communicator.h"

#include <utility>

#include "base/status_macros.h"

namespace turbokv {
namespace {

constexpr int kRanks = 2;

}  // namespace

absl::Status NcclCommunicator::Check(NcclResult result, absl::string_view call) const {
  // In progress is how calls of a non-blocking communicator succeed.
  if (result == kNcclInProgress) return absl::OkStatus();
  return api_->ToStatus(result, call, comm_);
}

absl::StatusOr<std::unique_ptr<NcclCommunicator>> NcclCommunicator::Start(
    std::shared_ptr<const NcclApi> api, const NcclUniqueId& unique_id, int rank) {
  std::unique_ptr<NcclCommunicator> communicator(new NcclCommunicator(std::move(api), rank));
  NcclConfig config;
  config.blocking = 0;
  const NcclResult result = communicator->api_->functions().CommInitRankConfig(
      &communicator->comm_, kRanks, unique_id, rank, &config);
  TURBOKV_RETURN_IF_ERROR(communicator->Check(result, "ncclCommInitRankConfig"));
  if (communicator->comm_ == nullptr) {
    return absl::InternalError("ncclCommInitRankConfig: no communicator came back");
  }
  return communicator;
}

NcclCommunicator::~NcclCommunicator() { Abort(); }

absl::StatusOr<bool> NcclCommunicator::Progress() {
  NcclResult state = kNcclSuccess;
  TURBOKV_RETURN_IF_ERROR(
      Check(api_->functions().CommGetAsyncError(comm_, &state), "ncclCommGetAsyncError"));
  if (state == kNcclInProgress) return false;
  TURBOKV_RETURN_IF_ERROR(Check(state, "asynchronous error of the communicator"));
  return true;
}

absl::Status NcclCommunicator::Launch(NcclDirection direction, absl::Span<const NcclPiece> pieces,
                                      void* stream) {
  const NcclFunctions& nccl = api_->functions();
  const int peer = 1 - rank_;
  TURBOKV_RETURN_IF_ERROR(Check(nccl.GroupStart(), "ncclGroupStart"));
  absl::Status enqueued;
  for (const NcclPiece& piece : pieces) {
    enqueued = direction == NcclDirection::kSend
                   ? Check(nccl.Send(piece.device, piece.bytes, kNcclUint8, peer, comm_, stream),
                           "ncclSend")
                   : Check(nccl.Recv(piece.device, piece.bytes, kNcclUint8, peer, comm_, stream),
                           "ncclRecv");
    if (!enqueued.ok()) break;
  }
  // A group is closed in any case: the state of groups is the thread's, not the communicator's.
  const absl::Status ended = Check(nccl.GroupEnd(), "ncclGroupEnd");
  TURBOKV_RETURN_IF_ERROR(enqueued);
  return ended;
}

absl::Status NcclCommunicator::Finalize() {
  return Check(api_->functions().CommFinalize(comm_), "ncclCommFinalize");
}

absl::Status NcclCommunicator::Destroy() {
  return Check(api_->functions().CommDestroy(std::exchange(comm_, nullptr)), "ncclCommDestroy");
}

void NcclCommunicator::Abort() {
  if (comm_ != nullptr) (void)api_->functions().CommAbort(std::exchange(comm_, nullptr));
}

}  // namespace turbokv
