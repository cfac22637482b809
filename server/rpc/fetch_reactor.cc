#include "server/rpc/fetch_reactor.h"

#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "client/wire/bulk_message.h"
#include "server/rpc/request_identity.h"
#include "turbokv/v1/cache.pb.h"

namespace turbokv {
namespace {

constexpr char kMethod[] = "Fetch";

// What slices that are being sent keep alive. The lease's refs go before the cache they refer to.
struct PinnedPages {
  std::shared_ptr<Storage> storage;
  std::shared_ptr<const LeaseInfo> lease;
};

struct HeldCopies {
  std::shared_ptr<const void> pages;
  std::vector<std::shared_ptr<const void>> copies;
};

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
  FetchRange range;
  range.first_layer = fields.first_layer();
  range.layer_count = fields.layer_count();
  range.first_block = fields.first_block();
  range.block_count = fields.block_count();
  range.include_tail = fields.include_tail();
  range.chunk_bytes = fields.chunk_bytes();
  TURBOKV_ASSIGN_OR_RETURN(
      run_, PageRun::Create(range, lease, &state_->cache(), state_->devices(), &state_->metrics()));
  pages_ = std::make_shared<const PinnedPages>(PinnedPages{state_->storage(), std::move(lease)});
  return state_->fetches().Add(this);
}

void FetchReactor::Prepare() {
  next_.reset();
  if (run_->done()) return;
  absl::StatusOr<RunChunk> chunk = run_->Next();
  next_status_ = chunk.status();
  if (!chunk.ok()) return;
  v1::FetchResponse fields;
  fields.set_layer(chunk->layer);
  fields.set_offset(chunk->offset);
  fields.set_layer_bytes(chunk->layer_bytes);
  std::shared_ptr<const void> holder = pages_;
  if (!chunk->copies.empty()) {
    holder = std::make_shared<const HeldCopies>(HeldCopies{pages_, std::move(chunk->copies)});
  }
  std::vector<grpc::Slice> slices;
  slices.reserve(chunk->pieces.size());
  for (const absl::Span<const uint8_t> piece : chunk->pieces) {
    slices.push_back(BorrowedSlice(piece, holder));
  }
  next_ = Message{BuildBulkMessage(fields, slices), static_cast<int64_t>(chunk->bytes),
                  chunk->ends_layer()};
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
