#include "client/share/share_session.h"

#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/wire/identity.h"

namespace turbokv {

absl::StatusOr<std::unique_ptr<ShareSession>> ShareSession::Connect(
    const ShareSessionOptions& options) {
  TURBOKV_RETURN_IF_ERROR(CheckIdentityName("tenant", options.identity.tenant));
  TURBOKV_RETURN_IF_ERROR(CheckIdentityName("client", options.identity.client));
  TURBOKV_ASSIGN_OR_RETURN(FdSocket socket,
                           FdSocket::Connect(options.path, absl::Now() + options.request_timeout));
  auto session = absl::WrapUnique(new ShareSession(options, std::move(socket)));
  TURBOKV_ASSIGN_OR_RETURN(const Reply reply, session->Exchange(options.identity));
  TURBOKV_ASSIGN_OR_RETURN(session->session_id_, DecodeHelloReply(reply.message()));
  if (session->session_id_ == 0 || reply.fd) {
    return absl::InternalError("the server sent a greeting that makes no sense");
  }
  return session;
}

ShareSession::~ShareSession() { socket_->Shutdown(); }

absl::Status ShareSession::Broken(absl::Status status) {
  socket_->Shutdown();
  return status;
}

absl::StatusOr<ShareSession::Reply> ShareSession::Exchange(const ShareRequest& request) {
  const std::vector<uint8_t> message = EncodeShareRequest(request);
  MutexLock lock(&mutex_);
  const absl::Time deadline = absl::Now() + request_timeout_;
  const absl::Status sent = socket_->Send(message, -1, deadline);
  Reply reply;
  // A server that refuses the connection says why and closes it, perhaps before it could be asked.
  absl::StatusOr<FdSocket::Received> received =
      socket_->ReceiveWithFd(absl::MakeSpan(reply.bytes), sent.ok() ? deadline : absl::Now());
  if (!received.ok()) {
    // A late reply must not be taken for the next one's.
    const absl::Status& why = sent.ok() ? received.status() : sent;
    if (why.code() == absl::StatusCode::kInvalidArgument) {
      return Broken(absl::InternalError(absl::StrCat("the server sent ", why.message())));
    }
    return Broken(why);
  }
  reply.size = received->bytes;
  reply.fd = std::move(received->fd);
  return reply;
}

absl::StatusOr<SlabOffer> ShareSession::MapSlab(uint64_t lease_id, uint32_t pool, uint32_t slab) {
  TURBOKV_ASSIGN_OR_RETURN(Reply reply, Exchange(MapSlabRequest{lease_id, pool, slab}));
  absl::StatusOr<PlacedSlab> placed = DecodeMapSlabReply(reply.message());
  if (!placed.ok()) {
    const bool broken = placed.status().code() == absl::StatusCode::kInternal || reply.fd;
    return broken ? Broken(placed.status()) : placed.status();
  }
  if (static_cast<bool>(reply.fd) != HasDescriptor(placed->memory.kind)) {
    return Broken(absl::InternalError(
        absl::StrCat("the server sent memory of kind ", static_cast<int>(placed->memory.kind),
                     reply.fd ? " with" : " without", " a descriptor")));
  }
  SlabOffer offer{*placed, std::move(reply.fd)};
  offer.slab.memory.fd = offer.fd.get();
  return offer;
}

absl::StatusOr<std::unique_ptr<StagingClient>> ShareSession::OpenStaging(
    const StagingGeometry& geometry) {
  TURBOKV_RETURN_IF_ERROR(CheckStagingGeometry(geometry));
  TURBOKV_ASSIGN_OR_RETURN(const Reply reply, Exchange(OpenStagingRequest{geometry}));
  const absl::StatusOr<StagingGeometry> granted = DecodeOpenStagingReply(reply.message());
  if (!granted.ok()) {
    const bool broken = granted.status().code() == absl::StatusCode::kInternal || reply.fd;
    return broken ? Broken(granted.status()) : granted.status();
  }
  if (!(*granted == geometry) || !reply.fd) {
    return Broken(absl::InternalError("the server sent other staging than it was asked for"));
  }
  absl::StatusOr<std::unique_ptr<StagingClient>> staging =
      StagingClient::Create(reply.fd, geometry, socket_);
  if (staging.status().code() == absl::StatusCode::kInvalidArgument) {
    return Broken(absl::InternalError(
        absl::StrCat("the server sent what is no staging: ", staging.status().message())));
  }
  return staging;
}

}  // namespace turbokv
