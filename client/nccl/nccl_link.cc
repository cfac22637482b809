#include "client/nccl/nccl_link.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "client/wire/call_context.h"
#include "turbokv/v1/transport.grpc.pb.h"

namespace turbokv {
namespace {

constexpr absl::Duration kHeartbeatPeriod = absl::Seconds(1);
constexpr absl::Duration kSilence = absl::Seconds(3);
constexpr absl::Duration kCloseGrace = absl::Seconds(1);

}  // namespace

// The call. One thread reads, one writes; gRPC allows that.
class NcclLink::Stream {
 public:
  explicit Stream(std::shared_ptr<CacheChannel> service)
      : service_(std::move(service)), stub_(v1::NcclService::NewStub(service_->grpc_channel())) {
    PrepareCall(*service_, absl::InfiniteDuration(), &context_);
  }

  void Start(v1::NcclHello hello) {
    call_ = stub_->Connect(&context_);
    v1::ConnectRequest request;
    *request.mutable_hello() = std::move(hello);
    call_->Write(request);  // a failure also ends the reader, which knows why
    {
      MutexLock lock(&mutex_);
      heard_ = absl::Now();
    }
    reader_ = std::thread([this] { Read(); });
    writer_ = std::thread([this] { Write(); });
  }

  // Closes this side, gives the service a moment to answer, and joins the threads.
  void Stop() {
    {
      MutexLock lock(&mutex_);
      closing_ = true;
      in_order_ = cause_.ok();
      if (in_order_) cause_ = absl::CancelledError("the link was closed");
      changed_.notify_all();
      const absl::Time deadline = absl::Now() + kCloseGrace;
      while (reader_.joinable() && !read_all_ && absl::Now() < deadline) {
        changed_.wait_until(mutex_, absl::ToChronoTime(deadline));
      }
    }
    context_.TryCancel();  // of no effect on a call that has ended
    if (reader_.joinable()) reader_.join();
    if (writer_.joinable()) writer_.join();
    MutexLock lock(&mutex_);
    channel_.reset();
  }

  absl::StatusOr<v1::NcclOpen> AwaitOpen(absl::Time deadline) {
    MutexLock lock(&mutex_);
    TURBOKV_RETURN_IF_ERROR(AwaitLocked(&open_, deadline, "an answer of the service"));
    return *open_;
  }
  absl::Status AwaitReady(absl::Time deadline) {
    MutexLock lock(&mutex_);
    return AwaitLocked(&ready_, deadline, "the service's end of the channel");
  }

  // From now on aborted when the stream breaks.
  void Guard(std::shared_ptr<NcclChannel> channel) {
    MutexLock lock(&mutex_);
    channel_ = std::move(channel);
    if (!cause_.ok()) channel_->Abort(cause_.message());
  }

  // The first call tells why; the stream and the channel end.
  void End(const absl::Status& cause) {
    MutexLock lock(&mutex_);
    EndLocked(cause);
  }

  absl::Status cause() const {
    MutexLock lock(&mutex_);
    return cause_;
  }

 private:
  void EndLocked(const absl::Status& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!cause_.ok()) return;
    cause_ = cause;
    if (channel_ != nullptr) channel_->Abort(cause.message());
    context_.TryCancel();
    changed_.notify_all();
  }

  template <typename T>
  absl::Status AwaitLocked(std::optional<T>* what, absl::Time deadline, absl::string_view name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (!what->has_value()) {
      TURBOKV_RETURN_IF_ERROR(cause_);
      if (absl::Now() >= deadline) {
        return absl::UnavailableError(absl::StrCat("NCCL link to ", service_->options().address,
                                                   ": ", name, " did not come in time"));
      }
      changed_.wait_until(mutex_, absl::ToChronoTime(deadline));
    }
    return absl::OkStatus();
  }

  void Read() {
    v1::ConnectResponse response;
    while (call_->Read(&response)) {
      MutexLock lock(&mutex_);
      heard_ = absl::Now();
      if (response.has_open()) open_ = response.open();
      if (response.has_ready()) ready_ = response.ready();
      changed_.notify_all();
    }
    const absl::Status status = CallStatus(*service_, "NCCL link", call_->Finish());
    MutexLock lock(&mutex_);
    read_all_ = true;
    changed_.notify_all();
    if (!closing_) {
      EndLocked(!status.ok() ? status
                             : absl::UnavailableError(
                                   absl::StrCat("NCCL link to ", service_->options().address,
                                                ": the service ended the stream")));
    }
  }

  // Heartbeats until the end; then, if this end wants it, the end of this side.
  void Write() {
    v1::ConnectRequest heartbeat;
    heartbeat.mutable_heartbeat();
    while (AwaitNextHeartbeat()) call_->Write(heartbeat);
    if (ClosesInOrder()) call_->WritesDone();
  }

  bool ClosesInOrder() const {
    MutexLock lock(&mutex_);
    return in_order_;
  }

  // False: there will be none.
  bool AwaitNextHeartbeat() {
    const absl::Time next = absl::Now() + kHeartbeatPeriod;
    MutexLock lock(&mutex_);
    while (!closing_ && cause_.ok() && absl::Now() < next) {
      changed_.wait_until(mutex_, absl::ToChronoTime(next));
    }
    if (!closing_ && absl::Now() - heard_ > kSilence) {
      EndLocked(absl::UnavailableError(absl::StrCat("NCCL link to ", service_->options().address,
                                                    ": the service was silent for ",
                                                    absl::FormatDuration(kSilence))));
    }
    return !closing_ && cause_.ok();
  }

  const std::shared_ptr<CacheChannel> service_;
  const std::unique_ptr<v1::NcclService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ConnectRequest, v1::ConnectResponse>> call_;
  std::thread reader_;
  std::thread writer_;

  mutable Mutex mutex_;
  CondVar changed_;
  std::optional<v1::NcclOpen> open_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::NcclReady> ready_ ABSL_GUARDED_BY(mutex_);
  absl::Time heard_ ABSL_GUARDED_BY(mutex_);
  absl::Status cause_ ABSL_GUARDED_BY(mutex_);  // why it ended; OK: it has not
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool in_order_ ABSL_GUARDED_BY(mutex_) = false;  // nothing had gone wrong when it was closed
  bool read_all_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<NcclChannel> channel_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<std::unique_ptr<NcclLink>> NcclLink::Open(std::shared_ptr<CacheChannel> service,
                                                         const NcclLinkOptions& options) {
  std::unique_ptr<NcclLink> link(new NcclLink(std::make_shared<Stream>(std::move(service))));
  TURBOKV_RETURN_IF_ERROR(link->Connect(options));
  return link;
}

absl::Status NcclLink::Connect(const NcclLinkOptions& options) {
  const absl::Time deadline = absl::Now() + options.connect_timeout;
  v1::NcclHello hello;
  hello.set_peer_name(options.peer_name);
  hello.set_device_uuid(options.device_uuid);
  hello.set_nccl_version(static_cast<uint32_t>(options.api->version()));
  hello.set_service_device_uuid(options.service_device_uuid);
  stream_->Start(std::move(hello));
  TURBOKV_ASSIGN_OR_RETURN(const v1::NcclOpen open, stream_->AwaitOpen(deadline));
  NcclChannelOptions channel;
  if (open.unique_id().size() != sizeof(channel.unique_id.bytes)) {
    return absl::InternalError(absl::StrCat("unique_id of ", open.unique_id().size(),
                                            " bytes; expected ", sizeof(channel.unique_id.bytes)));
  }
  open.unique_id().copy(channel.unique_id.bytes, sizeof(channel.unique_id.bytes));
  channel_id_ = open.channel_id();
  service_device_uuid_ = open.device_uuid();
  max_transfer_bytes_ = open.max_transfer_bytes();
  channel.api = options.api;
  channel.streams = options.streams;
  channel.rank = 1;
  channel.device_index = options.device_index;
  channel.peer = absl::StrCat("the service's GPU ", open.device_uuid());
  channel.connect_timeout = std::max(deadline - absl::Now(), absl::ZeroDuration());
  channel.transfer_timeout = options.transfer_timeout;
  channel.on_ended = [stream = stream_](const absl::Status& status) { stream->End(status); };
  channel_ = NcclChannel::Start(std::move(channel));
  stream_->Guard(channel_);
  const absl::Status connected = channel_->WaitConnected(absl::InfiniteFuture());
  if (!connected.ok()) {
    // A reason that the service gave is the better one; its end comes with the channel's.
    const absl::Status cause = stream_->cause();
    return cause.ok() ? connected : cause;
  }
  return stream_->AwaitReady(deadline);
}

NcclLink::~NcclLink() {
  // The stream first: the service is told of an end, not of an error.
  stream_->Stop();
  if (channel_ != nullptr) channel_->Abort("the link was closed");
}

absl::Status NcclLink::status() const { return stream_->cause(); }

}  // namespace turbokv
