// What the share server asks of the service behind it.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "client/share/fd_socket.h"
#include "client/share/share_protocol.h"
#include "client/share/shared_slab.h"

namespace turbokv {

// A process at the other end of a socket. Names are what it says; credentials what the kernel says.
struct ShareSessionInfo {
  uint64_t session_id = 0;
  ShareIdentity identity;
  PeerCredentials peer;
};

// Threads: called by the server's one thread only, which waits for it: every session waits too.
// Must not call the server back, other than FindStaging and stats.
class ShareHost {
 public:
  virtual ~ShareHost() = default;

  // Before the client learns its session's id, so that none can be named that is not known here.
  virtual void SessionOpened(const ShareSessionInfo& session) = 0;
  // The process has closed its end or died: what it held through this session can be let go.
  // Staging that is being read stays readable. Called once for each SessionOpened.
  virtual void SessionClosed(uint64_t session_id) = 0;

  // The memory of a slab that holds entries of `lease_id`; the receiver owns the descriptor. The
  // numbers are untrusted: a lease must be the session's identity's and hold something in just that
  // slab, or the client reads what is others'.
  virtual absl::StatusOr<PlacedSlab> MapSlab(const ShareSessionInfo& session,
                                             const MapSlabRequest& request) = 0;
};

}  // namespace turbokv
