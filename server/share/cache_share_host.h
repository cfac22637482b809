// Sharing, with the cache behind it: which session may map what, and which leases end with it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "server/index/block_cache.h"
#include "server/share/share_host.h"

namespace turbokv {

// Threads: any.
class CacheShareHost final : public ShareHost {
 public:
  explicit CacheShareHost(BlockCache* cache) : cache_(cache) {}  // outlives this

  // PERMISSION_DENIED: no such session, or another client's: the two are not told apart.
  absl::Status CheckSession(uint64_t session_id, const ClientIdentity& owner) const;

  // The lease ends with the session. PERMISSION_DENIED as CheckSession: it has gone meanwhile.
  absl::Status AddLease(uint64_t session_id, const ClientIdentity& owner, uint64_t lease_id);

  void SessionOpened(const ShareSessionInfo& session) override;
  void SessionClosed(uint64_t session_id) override;
  absl::StatusOr<PlacedSlab> MapSlab(const ShareSessionInfo& session,
                                     const MapSlabRequest& request) override;

 private:
  struct Session {
    ClientIdentity owner;
    std::vector<uint64_t> lease_ids;  // also of leases that have ended, until they are swept
    size_t sweep_at = 0;              // as many leases
  };

  absl::Status CheckOwner(uint64_t session_id, const ClientIdentity& owner) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SweepEnded(Session* session) const;

  BlockCache* const cache_;
  mutable Mutex mutex_;
  absl::flat_hash_map<uint64_t, Session> sessions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv
