#include "server/rpc/nccl_fetch_reactor.h"

#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/wire/bulk_message.h"
#include "server/rpc/fetch_message.h"
#include "server/rpc/nccl_service.h"
#include "server/rpc/request_identity.h"

namespace turbokv {
namespace {

constexpr char kMethod[] = "Fetch";

}  // namespace

NcclFetchReactor::NcclFetchReactor(ServiceState* state, grpc::CallbackServerContext* context,
                                   v1::FetchRequest request)
    : state_(state), context_(context), request_(std::move(request)), start_(absl::Now()) {
  thread_ = std::thread([this] { End(Run()); });
}

void NcclFetchReactor::OnDone() {
  thread_.join();
  state_->fetches().Remove(this);
  delete this;
}

void NcclFetchReactor::OnStalled() { context_->TryCancel(); }

void NcclFetchReactor::OnWriteDone(bool ok) {
  Touch();
  MutexLock lock(&mutex_);
  writing_ = false;
  write_failed_ = !ok;
  written_.notify_all();
}

absl::Status NcclFetchReactor::Write(const grpc::ByteBuffer& message) {
  message_ = message;
  MutexLock lock(&mutex_);
  writing_ = true;
  StartWrite(&message_);
  while (writing_) written_.wait(mutex_);
  return write_failed_ ? absl::CancelledError("the client has gone") : absl::OkStatus();
}

absl::Status NcclFetchReactor::Run() {
  TURBOKV_ASSIGN_OR_RETURN(const ClientIdentity owner, IdentityOf(*context_));
  // First, so that the numbers of a fetch which fails for any other reason are given up.
  TURBOKV_ASSIGN_OR_RETURN(const std::unique_ptr<PageSender> sender, OpenSender(owner));
  TURBOKV_RETURN_IF_ERROR(state_->fetches().Add(this));
  TURBOKV_ASSIGN_OR_RETURN(std::shared_ptr<const LeaseInfo> lease,
                           state_->cache().FindLease(owner, request_.lease_id()));
  TURBOKV_ASSIGN_OR_RETURN(const PageRun range,
                           PageRun::Create(RangeOf(request_), lease, &state_->cache(),
                                           state_->devices(), &state_->metrics()));
  TURBOKV_RETURN_IF_ERROR(sender->Open(lease, range));
  absl::Status sent = SendBlocks(sender.get());
  if (sent.ok() && request_.include_tail()) sent = SendTail(lease);
  if (sent.ok()) sent = sender->Wait();
  // The client does not learn what was announced, or no longer waits for it.
  if (absl::IsCancelled(sent)) sender->AbortChannel(sent.message());
  return sent;
}

absl::StatusOr<std::unique_ptr<PageSender>> NcclFetchReactor::OpenSender(
    const ClientIdentity& owner) {
  if (state_->nccl() == nullptr) {
    return absl::FailedPreconditionError("nccl is set; the service has no NCCL channels");
  }
  const v1::NcclFetch& nccl = request_.nccl();
  TURBOKV_ASSIGN_OR_RETURN(NcclServiceImpl::Transport transport,
                           state_->nccl()->FindTransport(owner, nccl.channel_id()));
  PageSenderOptions options;
  options.end = std::move(transport.end);
  options.lanes = transport.device->lanes;
  options.patience = state_->nccl()->environment().transfer_timeout;
  options.cancelled = [this] { return context_->IsCancelled(); };
  options.cache = &state_->cache();
  options.metrics = &state_->metrics();
  const TransferNumbers numbers = {nccl.first_sequence(), nccl.transfer_count(),
                                   nccl.pages_per_transfer()};
  return std::make_unique<PageSender>(std::move(options), numbers);
}

absl::Status NcclFetchReactor::SendBlocks(PageSender* sender) {
  while (true) {
    TURBOKV_ASSIGN_OR_RETURN(const SentTransfer sent, sender->Next());
    if (sent.bytes == 0) return absl::OkStatus();
    v1::FetchResponse response;
    response.mutable_nccl()->set_sequence(sent.sequence);
    response.mutable_nccl()->set_bytes(sent.bytes);
    TURBOKV_RETURN_IF_ERROR(Write(BuildBulkMessage(response, {})));
    state_->metrics().CountFetchedBytes(static_cast<int64_t>(sent.bytes));
  }
}

absl::Status NcclFetchReactor::SendTail(std::shared_ptr<const LeaseInfo> lease) {
  FetchRange range = RangeOf(request_);
  range.first_block = lease->blocks.size();  // none of them
  range.block_count = 0;
  TURBOKV_ASSIGN_OR_RETURN(PageRun run, PageRun::Create(range, lease, &state_->cache(),
                                                        state_->devices(), &state_->metrics()));
  const std::shared_ptr<const void> pages = PinPages(state_->storage(), std::move(lease));
  while (!run.done()) {
    TURBOKV_ASSIGN_OR_RETURN(RunChunk chunk, run.Next());
    const FetchMessage message = MakeFetchMessage(std::move(chunk), pages);
    TURBOKV_RETURN_IF_ERROR(Write(message.bytes));
    state_->metrics().CountFetchedBytes(message.data_bytes);
  }
  return absl::OkStatus();
}

void NcclFetchReactor::End(const absl::Status& status) {
  if (status.ok()) state_->metrics().ObserveLatency(Latency::kFetch, absl::Now() - start_);
  Finish(state_->End(kMethod, status, context_));
}

}  // namespace turbokv
