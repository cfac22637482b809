#include "server/rpc/nccl_reactor.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "client/wire/identity.h"
#include "server/rpc/request_identity.h"

namespace turbokv {
namespace {

constexpr char kMethod[] = "Connect";
// `open`, `ready` and a heartbeat: a client that does not read gets no more queued than that.
constexpr size_t kMaxQueuedResponses = 4;

}  // namespace

NcclReactor::NcclReactor(NcclServiceImpl* service, grpc::CallbackServerContext* context)
    : service_(service), context_(context), link_(std::make_shared<Link>()) {
  {
    MutexLock lock(&link_->mutex);
    link_->reactor = this;
  }
  absl::Status admitted = service_->state().CheckServing();
  if (admitted.ok()) admitted = service_->environment().available;
  if (admitted.ok()) admitted = service_->streams().Add(this);
  MutexLock lock(&mutex_);
  if (admitted.ok()) {
    StartRead(&request_);
  } else {
    End(admitted);
  }
}

void NcclReactor::OnDone() {
  service_->streams().Remove(this);
  {
    // A callback of the channel that is under way ends first.
    MutexLock lock(&link_->mutex);
    link_->reactor = nullptr;
  }
  // Whoever called Finish may not have let go of the mutex yet.
  { MutexLock lock(&mutex_); }
  delete this;
}

void NcclReactor::OnReadDone(bool ok) {
  MutexLock lock(&mutex_);
  Touch();
  if (ended_) return;
  if (!ok) {
    End(context_->IsCancelled() ? absl::CancelledError("the client has gone") : absl::OkStatus());
    return;
  }
  const absl::Status status = Handle(request_);
  if (!status.ok()) {
    End(status);
  } else {
    StartRead(&request_);
  }
}

void NcclReactor::OnWriteDone(bool ok) {
  MutexLock lock(&mutex_);
  if (ended_ || !ok) return;  // a broken stream also ends the read
  queue_.pop_front();
  WriteNext();
}

void NcclReactor::OnCancel() {
  MutexLock lock(&mutex_);
  End(absl::CancelledError("the client has gone"));
}

void NcclReactor::OnStalled() {
  MutexLock lock(&mutex_);
  End(absl::UnavailableError(
      absl::StrCat("the client sent no heartbeat for ", absl::FormatDuration(kNcclSilence))));
}

absl::Status NcclReactor::Handle(const v1::ConnectRequest& request) {
  if (request.has_hello()) {
    if (channel_id_ != 0) return absl::InvalidArgumentError("a second `hello` in one stream");
    return Open(request.hello());
  }
  if (!request.has_heartbeat()) {
    return absl::InvalidArgumentError("a message with neither `hello` nor `heartbeat`");
  }
  if (channel_id_ == 0) return absl::InvalidArgumentError("the first message is not `hello`");
  if (queue_.size() < kMaxQueuedResponses) {
    v1::ConnectResponse response;
    response.mutable_heartbeat();
    Send(std::move(response));
  }
  return absl::OkStatus();
}

absl::Status NcclReactor::CheckVersion(const v1::NcclHello& hello) const {
  const int version = service_->environment().api->version();
  if (hello.nccl_version() == static_cast<uint32_t>(version)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("nccl_version is ", hello.nccl_version(), "; the service has ", version, " (",
                   NcclVersionText(version), "), and NCCL connects equal versions only"));
}

absl::Status NcclReactor::Open(const v1::NcclHello& hello) {
  const NcclEnvironment& environment = service_->environment();
  TURBOKV_ASSIGN_OR_RETURN(const ClientIdentity owner, IdentityOf(*context_));
  TURBOKV_RETURN_IF_ERROR(CheckIdentityName("peer_name", hello.peer_name()));
  TURBOKV_RETURN_IF_ERROR(CheckVersion(hello));
  TURBOKV_ASSIGN_OR_RETURN(
      const NcclDevice device,
      service_->ChooseDevice(hello.device_uuid(), hello.service_device_uuid()));
  TURBOKV_ASSIGN_OR_RETURN(channel_id_, service_->channels().Reserve(owner, hello.peer_name()));
  NcclChannelOptions options;
  // Every channel its own: an id lets its holder join, so no two peers ever see the same.
  TURBOKV_ASSIGN_OR_RETURN(options.unique_id, environment.api->NewUniqueId());
  options.api = environment.api;
  options.streams = environment.streams;
  options.rank = 0;
  options.device_index = device.index;
  options.peer = absl::StrCat(owner.tenant, "/", owner.client, "/", hello.peer_name(), " at ",
                              context_->peer());
  options.connect_timeout = environment.connect_timeout;
  options.transfer_timeout = environment.transfer_timeout;
  options.on_connected = [link = link_] {
    MutexLock lock(&link->mutex);
    if (link->reactor != nullptr) link->reactor->OnConnected();
  };
  options.on_ended = [link = link_](const absl::Status& status) {
    MutexLock lock(&link->mutex);
    if (link->reactor != nullptr) link->reactor->OnChannelEnded(status);
  };
  v1::ConnectResponse response;
  v1::NcclOpen* open = response.mutable_open();
  open->set_unique_id(options.unique_id.bytes, sizeof(options.unique_id.bytes));
  open->set_channel_id(channel_id_);
  open->set_device_uuid(device.uuid);
  open->set_nccl_version(static_cast<uint32_t>(environment.api->version()));
  if (device.lanes != nullptr) open->set_max_transfer_bytes(device.lanes->max_transfer_bytes());
  Send(std::move(response));
  service_->channels().Attach(channel_id_, NcclChannel::Start(std::move(options)), device.pool);
  return absl::OkStatus();
}

void NcclReactor::OnConnected() {
  MutexLock lock(&mutex_);
  if (ended_) return;
  v1::ConnectResponse response;
  response.mutable_ready();
  Send(std::move(response));
}

void NcclReactor::OnChannelEnded(const absl::Status& status) {
  MutexLock lock(&mutex_);
  End(status);
}

void NcclReactor::Send(v1::ConnectResponse response) {
  queue_.push_back(std::move(response));
  if (queue_.size() == 1) WriteNext();
}

void NcclReactor::WriteNext() {
  if (!queue_.empty()) StartWrite(&queue_.front());
}

void NcclReactor::End(const absl::Status& status) {
  if (std::exchange(ended_, true)) return;
  if (channel_id_ != 0) {
    service_->channels().Close(
        channel_id_, status.ok() ? absl::CancelledError("the client closed the stream") : status);
    LogInfo(
        "NCCL channel ended",
        {{"peer", context_->peer()}, {"channel_id", channel_id_}, {"status", status.ToString()}});
  }
  Finish(service_->state().End(kMethod, status, context_));
}

}  // namespace turbokv
