#include "server/rpc/store_reactor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/chunk_sizes.h"
#include "client/wire/bulk_message.h"
#include "client/wire/spec_conversion.h"
#include "server/rpc/nccl_service.h"
#include "server/rpc/request_identity.h"

namespace turbokv {
namespace {

constexpr char kMethod[] = "Store";
constexpr size_t kMaxQueuedMessages = 2;
// Jobs of one stream in a row before other streams get the thread.
constexpr int kJobsPerTurn = 8;

absl::StatusOr<StoreEncoding> EncodingOf(v1::StoreEncoding encoding) {
  switch (encoding) {
    case v1::STORE_ENCODING_RAW:
      return StoreEncoding::kRaw;
    case v1::STORE_ENCODING_PAGES:
      return StoreEncoding::kPages;
    default:
      return absl::InvalidArgumentError(absl::StrCat("encoding is ", static_cast<int>(encoding),
                                                     "; expected 1 (raw) or 2 (pages)"));
  }
}

}  // namespace

StoreReactor::StoreReactor(ServiceState* state, grpc::CallbackServerContext* context,
                           grpc::ByteBuffer* response)
    : state_(state), context_(context), response_(response), start_(absl::Now()) {
  state_->metrics().AddActiveStores(1);
  absl::Status admitted = state_->CheckServing();
  if (admitted.ok()) admitted = state_->stores().Add(this);
  MutexLock lock(&mutex_);
  if (admitted.ok()) {
    Step();  // nothing has come yet: it only starts reading
  } else {
    End(admitted);
  }
}

void StoreReactor::OnDone() {
  thread_.reset();  // the job that called Finish returns
  state_->stores().Remove(this);
  // Whoever called Finish may not have let go of the mutex yet.
  { MutexLock lock(&mutex_); }
  delete this;
}

void StoreReactor::OnReadDone(bool ok) {
  std::optional<Job> job;
  {
    MutexLock lock(&mutex_);
    Touch();
    reading_ = false;
    if (ok) {
      queue_.push_back(read_buffer_);
      read_buffer_.Clear();
    } else {
      closed_ = true;
    }
    job = Step();
  }
  if (job) Run(std::move(job));
}

void StoreReactor::OnCancel() {
  MutexLock lock(&mutex_);
  cancelled_ = true;
  if (!busy_) End(absl::CancelledError("the client has gone"));
}

void StoreReactor::OnStalled() {
  MutexLock lock(&mutex_);
  if (ended_ || busy_ || !reading_) return;
  if (IsBroken()) return End(receiver_->Error());
  End(absl::DeadlineExceededError(absl::StrCat(
      "the stream sent nothing for ", absl::FormatDuration(state_->config().stall_timeout))));
}

std::optional<StoreReactor::Job> StoreReactor::Step() {
  std::optional<Job> job;
  if (ended_) return job;
  if (!busy_ && !queue_.empty()) {
    job.emplace(Job{std::move(queue_.front())});
    queue_.pop_front();
  } else if (!busy_ && closed_) {
    job.emplace();
  }
  if (job) busy_ = true;
  if (!reading_ && queue_.size() < kMaxQueuedMessages && !closed_) {
    reading_ = true;
    StartRead(&read_buffer_);
  }
  return job;
}

void StoreReactor::End(const absl::Status& status) {
  if (std::exchange(ended_, true)) return;
  state_->metrics().AddActiveStores(-1);
  // Work does not run now. What came over a channel after a failure would be taken for later
  // transfers: the channel goes.
  if (receiver_ != nullptr && !status.ok()) receiver_->AbortChannel(status.message());
  receiver_.reset();
  session_.reset();  // gives the memory back
  queue_.clear();
  if (status.ok()) state_->metrics().ObserveLatency(Latency::kStore, absl::Now() - start_);
  Finish(state_->End(kMethod, status, context_));
}

void StoreReactor::Run(std::optional<Job> job) {
  while (job && !encodes_) job = Work(*job);
  if (job) RunOnThread(*std::move(job));
}

ThreadPool* StoreReactor::JobThreads() {
  return thread_ != nullptr ? thread_.get() : &state_->encode_pool();
}

void StoreReactor::RunOnThread(Job job) {
  ThreadPool* const threads = JobThreads();
  threads->Schedule([this, threads, first = std::move(job)] {
    std::optional<Job> next = Work(first);
    for (int i = 1; i < kJobsPerTurn && next && threads == JobThreads(); ++i) next = Work(*next);
    if (next) Run(std::move(next));  // without a job, the reactor may be gone
  });
}

std::optional<StoreReactor::Job> StoreReactor::Work(const Job& job) {
  const bool last = !job.message;
  const absl::Status status = last ? Publish() : Process(*job.message);
  MutexLock lock(&mutex_);
  Touch();
  busy_ = false;
  if (!status.ok() || last) {
    End(status);
  } else if (cancelled_) {
    End(absl::CancelledError("the client has gone"));
  } else {
    return Step();
  }
  return std::nullopt;
}

absl::Status StoreReactor::Process(const grpc::ByteBuffer& message) {
  fields_.Clear();
  TURBOKV_ASSIGN_OR_RETURN(const BulkPayload payload, ParseBulkMessage(message, &fields_));
  if (fields_.has_open()) {
    if (session_ != nullptr) return absl::InvalidArgumentError("a second `open` in one stream");
    return Open(fields_.open());
  }
  if (!fields_.has_chunk()) {
    return absl::InvalidArgumentError("a message with neither `open` nor `chunk`");
  }
  if (session_ == nullptr) {
    return absl::InvalidArgumentError("the first message is not `open`");
  }
  if (payload.size_bytes() > kMaxChunkBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a chunk of ", payload.size_bytes(),
                                                   " bytes; expected at most ", kMaxChunkBytes));
  }
  StoreChunk chunk;
  chunk.layer = fields_.chunk().layer();
  chunk.token_offset = fields_.chunk().token_offset();
  chunk.token_count = fields_.chunk().token_count();
  chunk.block_index = fields_.chunk().block_index();
  chunk.page_offset = fields_.chunk().page_offset();
  if (fields_.chunk().has_nccl()) {
    if (payload.size_bytes() > 0 || fields_.chunk().has_staged()) {
      return absl::InvalidArgumentError("a chunk with `nccl` and with `staged` or `data`");
    }
    return AddRun(fields_.chunk());
  }
  if (fields_.chunk().has_staged()) {
    if (payload.size_bytes() > 0) {
      return absl::InvalidArgumentError("a chunk with both `staged` and `data`");
    }
    return AddStaged(fields_.chunk().staged(), chunk);
  }
  chunk.pieces = payload.pieces();
  chunk.bytes = payload.size_bytes();
  return session_->Add(chunk);
}

absl::Status StoreReactor::AddStaged(const v1::StagedBytes& staged, StoreChunk chunk) {
  if (staging_ == nullptr) {
    return absl::InvalidArgumentError("a chunk with `staged`; `open` named no share_session");
  }
  TURBOKV_ASSIGN_OR_RETURN(const absl::Span<const uint8_t> bytes,
                           staging_->Slot(staged.slot(), staged.offset(), staged.size()));
  chunk.pieces = absl::MakeConstSpan(&bytes, 1);
  chunk.bytes = bytes.size();
  const absl::Status added = session_->Add(chunk);
  const absl::Status released = staging_->Release(staged.slot());
  return added.ok() ? released : added;
}

absl::Status StoreReactor::AddRun(const v1::StoreChunk& chunk) {
  if (receiver_ == nullptr) {
    return absl::InvalidArgumentError("a chunk with `nccl`; `open` named no nccl_channel_id");
  }
  if (chunk.nccl().block_count() > kMaxTransferPages) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", chunk.layer(), ": block_count is ",
                                                   chunk.nccl().block_count(), "; expected 1..",
                                                   kMaxTransferPages));
  }
  const BlockRun run = {chunk.layer(), chunk.nccl().first_block(), chunk.nccl().block_count()};
  TURBOKV_ASSIGN_OR_RETURN(DeviceRun checked, session_->AddRun(run, receiver_->max_run_bytes()));
  return receiver_->Receive(chunk.nccl().sequence(), std::move(checked));
}

absl::StatusOr<std::optional<PoolId>> StoreReactor::OpenReceiver(const ClientIdentity& owner,
                                                                 uint64_t channel_id) {
  if (channel_id == 0) return std::optional<PoolId>();
  if (state_->nccl() == nullptr) {
    return absl::FailedPreconditionError(
        "nccl_channel_id is set; the service has no NCCL channels");
  }
  TURBOKV_ASSIGN_OR_RETURN(NcclServiceImpl::Transport transport,
                           state_->nccl()->FindTransport(owner, channel_id));
  RunReceiverOptions options;
  options.end = std::move(transport.end);
  options.lanes = transport.device->lanes;
  options.patience = state_->nccl()->environment().transfer_timeout;
  options.cancelled = [this] { return context_->IsCancelled(); };
  options.failed = transfer_failed_;
  options.metrics = &state_->metrics();
  receiver_ = std::make_unique<RunReceiver>(std::move(options));
  thread_ = std::make_unique<ThreadPool>(1);
  return std::optional<PoolId>(transport.device->pool);
}

absl::Status StoreReactor::OpenStaging(const ClientIdentity& owner, uint64_t session_id) {
  if (session_id == 0) return absl::OkStatus();
  if (state_->share_host() == nullptr) {
    return absl::FailedPreconditionError("share_session is set; the service shares no memory");
  }
  TURBOKV_RETURN_IF_ERROR(state_->share_host()->CheckSession(session_id, owner));
  staging_ = state_->share_server()->FindStaging(session_id);
  if (staging_ != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError("share_session is set; the session has no staging memory");
}

absl::Status StoreReactor::Open(const v1::StoreOpen& open) {
  TURBOKV_ASSIGN_OR_RETURN(const ClientIdentity owner, IdentityOf(*context_));
  StoreAnnouncement announcement;
  TURBOKV_ASSIGN_OR_RETURN(announcement.spec, FromProto(open.spec()));
  TURBOKV_ASSIGN_OR_RETURN(announcement.encoding, EncodingOf(open.encoding()));
  announcement.first_token = open.first_token();
  announcement.token_count = open.token_count();
  announcement.block_keys = open.block_keys();
  announcement.tail_key = open.tail_key();
  TURBOKV_ASSIGN_OR_RETURN(StorePlan plan, PlanStore(announcement));
  TURBOKV_RETURN_IF_ERROR(OpenStaging(owner, open.share_session()));
  TURBOKV_ASSIGN_OR_RETURN(const std::optional<PoolId> pool,
                           OpenReceiver(owner, open.nccl_channel_id()));
  encodes_ = plan.encoding == StoreEncoding::kRaw || receiver_ != nullptr;
  TURBOKV_ASSIGN_OR_RETURN(
      session_, StoreSession::Open(state_->store_environment(), owner, std::move(plan), pool));
  state_->metrics().CountRoad(RoadCall::kStore, receiver_ != nullptr  ? MetricRoad::kNccl
                                                : staging_ != nullptr ? MetricRoad::kShm
                                                                      : MetricRoad::kGrpc);
  return absl::OkStatus();
}

absl::Status StoreReactor::Publish() {
  if (session_ == nullptr) return absl::InvalidArgumentError("the stream ended before `open`");
  if (context_->IsCancelled()) return absl::CancelledError("the client has gone");
  if (receiver_ != nullptr) TURBOKV_RETURN_IF_ERROR(receiver_->Wait());
  TURBOKV_ASSIGN_OR_RETURN(const StoreSummary summary, session_->Finish());
  v1::StoreResponse response;
  response.set_stored_blocks(summary.stored_blocks);
  response.set_present_blocks(summary.present_blocks);
  response.set_stored_tail(summary.stored_tail);
  response.set_raw_bytes(summary.raw_bytes);
  response.set_kept_bytes(summary.kept_bytes);
  response.set_encode_us(absl::ToInt64Microseconds(summary.encode_time));
  *response_ = BuildBulkMessage(response, {});
  return absl::OkStatus();
}

}  // namespace turbokv
