#include "server/rpc/fetch_reactor.h"

#include <utility>

#include "absl/time/clock.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "client/wire/bulk_message.h"
#include "server/rpc/request_identity.h"
#include "turbokv/v1/cache.pb.h"

namespace turbokv {
namespace {

constexpr char kMethod[] = "Fetch";

}  // namespace

FetchReactor::FetchReactor(ServiceState* state, grpc::CallbackServerContext* context,
                           const grpc::ByteBuffer* request)
    : state_(state), context_(context), start_(absl::Now()) {
  const absl::Status opened = Open(*request);
  if (!opened.ok()) {
    End(opened);
    return;
  }
  Prepare();
  Pump();
}

void FetchReactor::OnDone() {
  state_->fetches().Remove(this);
  delete this;
}

absl::Status FetchReactor::Open(const grpc::ByteBuffer& request) {
  TURBOKV_ASSIGN_OR_RETURN(const ClientIdentity owner, IdentityOf(*context_));
  v1::FetchRequest fields;
  TURBOKV_RETURN_IF_ERROR(ParseBulkMessage(request, &fields).status());
  TURBOKV_ASSIGN_OR_RETURN(std::shared_ptr<const LeaseInfo> lease,
                           state_->cache().FindLease(owner, fields.lease_id()));
  TURBOKV_ASSIGN_OR_RETURN(run_, PageRun::Create(RangeOf(fields), lease, &state_->cache(),
                                                 state_->devices(), &state_->metrics()));
  pages_ = PinPages(state_->storage(), std::move(lease));
  return state_->fetches().Add(this);
}

void FetchReactor::Prepare() {
  next_.reset();
  if (run_->done()) return;
  absl::StatusOr<RunChunk> chunk = run_->Next();
  next_status_ = chunk.status();
  if (!chunk.ok()) return;
  next_ = MakeFetchMessage(*std::move(chunk), pages_);
}

void FetchReactor::Pump() {
  do {
    if (write_failed_) return End(absl::CancelledError("the client has gone"));
    if (!next_status_.ok()) return End(next_status_);
    if (!next_) return End(absl::OkStatus());
    current_ = *std::move(next_);
    outstanding_ = 2;
    Touch();
    StartWrite(&current_.bytes);
    Prepare();
  } while (BothDone());
}

void FetchReactor::OnWriteDone(bool ok) {
  Touch();
  if (ok) {
    CountWritten();
  } else {
    write_failed_ = true;
  }
  if (BothDone()) Pump();
}

void FetchReactor::CountWritten() {
  state_->metrics().CountFetchedBytes(current_.data_bytes);
  if (!current_.ends_layer || std::exchange(first_layer_written_, true)) return;
  state_->metrics().ObserveLatency(Latency::kTimeToFirstLayer, absl::Now() - start_);
}

void FetchReactor::OnStalled() {
  LogWarning("fetch stalled: its client stopped reading", {{"peer", context_->peer()}});
  context_->TryCancel();
}

void FetchReactor::End(const absl::Status& status) {
  if (status.ok()) state_->metrics().ObserveLatency(Latency::kFetch, absl::Now() - start_);
  Finish(state_->End(kMethod, status, context_));
}

}  // namespace turbokv
