// A client's connection to turbokvd on the same host: it shares memory, and tells the server at
// once when this process dies.
//
//   auto session = ShareSession::Connect({.path = "/run/turbokv/share.sock", .identity = {...}});
//   // gRPC calls name session->session_id(); a lookup gives a lease and places
//   auto offer = session->MapSlab(lease_id, pool, slab);
//   auto staging = session->OpenStaging({.slot_bytes = 1 << 20, .slots = 8});
//
// Errors: UNAVAILABLE, the server has gone; DEADLINE_EXCEEDED, it did not answer in
// `request_timeout`; INTERNAL, it broke the protocol. After any of the three the session is of no
// more use; what was mapped stays readable. Other errors are the server's answers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "client/share/fd_socket.h"
#include "client/share/share_protocol.h"
#include "client/share/shared_staging.h"
#include "client/share/unique_fd.h"

namespace turbokv {

struct ShareSessionOptions {
  std::string path;  // of the server's socket
  ShareIdentity identity;
  absl::Duration request_timeout = absl::Seconds(10);  // also of connecting
};

// A slab as offered by the server, not checked yet: SlabImporter::Import does that.
struct SlabOffer {
  PlacedSlab slab;  // slab.memory.fd is fd.get()
  UniqueFd fd;      // may be empty, as the kind has it
};

// Threads: any; requests queue for one another.
class ShareSession {
 public:
  // INVALID_ARGUMENT: a path or name that cannot be. RESOURCE_EXHAUSTED: the server has as many
  // sessions as it takes.
  static absl::StatusOr<std::unique_ptr<ShareSession>> Connect(const ShareSessionOptions& options);

  // Random, never 0. It stands for this session in gRPC calls; keep it secret.
  uint64_t session_id() const { return session_id_; }
  // False once the server has gone.
  bool alive() const { return socket_->PeerAlive(); }

  absl::StatusOr<SlabOffer> MapSlab(uint64_t lease_id, uint32_t pool, uint32_t slab);

  // Once a session. The result may outlive the session object, and gets no slots then.
  absl::StatusOr<std::unique_ptr<StagingClient>> OpenStaging(const StagingGeometry& geometry);

  ~ShareSession();

 private:
  struct Reply {
    uint8_t bytes[kMaxShareMessageBytes];
    size_t size = 0;
    UniqueFd fd;
    absl::Span<const uint8_t> message() const { return {bytes, size}; }
  };

  explicit ShareSession(const ShareSessionOptions& options, FdSocket socket)
      : request_timeout_(options.request_timeout),
        socket_(std::make_shared<FdSocket>(std::move(socket))) {}

  absl::StatusOr<Reply> Exchange(const ShareRequest& request);
  // A peer that broke the protocol is not to be talked to any more.
  absl::Status Broken(absl::Status status);

  const absl::Duration request_timeout_;
  const std::shared_ptr<FdSocket> socket_;  // StagingClient watches it
  uint64_t session_id_ = 0;
  Mutex mutex_;  // held for an exchange
};

}  // namespace turbokv
