// Shares memory with processes of this host over a Unix socket (client/share/share_protocol.h).
//
// One thread waits for all sessions and costs nothing while they are idle. It trusts no client:
// each may break the protocol, stop reading or die at any instant, and costs the others at most the
// time of one request. What a session had (descriptors, mapping, staging) goes when its socket
// closes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/share/shared_staging.h"
#include "server/share/share_host.h"

namespace turbokv {

struct ShareServerOptions {
  std::string path;             // of the socket; at most 107 bytes
  uint32_t max_sessions = 256;  // more are refused with RESOURCE_EXHAUSTED
  uint64_t max_session_staging_bytes = uint64_t{256} << 20;
  uint64_t max_staging_bytes = uint64_t{1} << 30;  // of all sessions
  // A connection that has not said who it is for so long is closed.
  absl::Duration hello_timeout = absl::Seconds(5);
};

struct ShareServerStats {
  uint64_t sessions = 0;          // connections open now
  uint64_t staging_bytes = 0;     // in use now
  uint64_t opened_sessions = 0;   // since the start, as the rest
  uint64_t refused_sessions = 0;  // there were too many
  uint64_t protocol_errors = 0;   // connections closed for one
  uint64_t mapped_slabs = 0;      // descriptors or handles given out
};

// Threads: any.
class ShareServer {
 public:
  // Listens and serves. `host` outlives the result. Errors: as FdListener::Listen;
  // RESOURCE_EXHAUSTED, no descriptors; INVALID_ARGUMENT names the option.
  static absl::StatusOr<std::unique_ptr<ShareServer>> Start(const ShareServerOptions& options,
                                                            ShareHost* host);
  // Closes every session (the host hears of each) and removes the socket.
  ~ShareServer();

  // Null: no such session, or none that has staging. The result stays readable, and charged to the
  // budget, while it is held, whatever becomes of the session.
  std::shared_ptr<StagingRegion> FindStaging(uint64_t session_id) const;

  ShareServerStats stats() const;

 private:
  class Impl;
  explicit ShareServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace turbokv
