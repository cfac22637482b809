#include "server/share/cache_share_host.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

constexpr size_t kFirstSweep = 64;

ClientIdentity OwnerOf(const ShareIdentity& identity) { return {identity.tenant, identity.client}; }

}  // namespace

absl::Status CacheShareHost::CheckOwner(uint64_t session_id, const ClientIdentity& owner) const {
  const auto session = sessions_.find(session_id);
  if (session != sessions_.end() && session->second.owner == owner) return absl::OkStatus();
  return absl::PermissionDeniedError(
      "share_session is none of this client's: the socket was closed, or it is another's");
}

absl::Status CacheShareHost::CheckSession(uint64_t session_id, const ClientIdentity& owner) const {
  const MutexLock lock(&mutex_);
  return CheckOwner(session_id, owner);
}

absl::Status CacheShareHost::AddLease(uint64_t session_id, const ClientIdentity& owner,
                                      uint64_t lease_id) {
  const MutexLock lock(&mutex_);
  TURBOKV_RETURN_IF_ERROR(CheckOwner(session_id, owner));
  Session& session = sessions_[session_id];
  session.lease_ids.push_back(lease_id);
  if (session.lease_ids.size() >= session.sweep_at) SweepEnded(&session);
  return absl::OkStatus();
}

void CacheShareHost::SweepEnded(Session* session) const {
  auto& ids = session->lease_ids;
  ids.erase(
      std::remove_if(ids.begin(), ids.end(),
                     [&](uint64_t id) { return !cache_->FindLease(session->owner, id).ok(); }),
      ids.end());
  session->sweep_at = std::max(kFirstSweep, 2 * ids.size());
}

void CacheShareHost::SessionOpened(const ShareSessionInfo& session) {
  LogInfo("memory is shared with a process", {{"tenant", session.identity.tenant},
                                              {"client", session.identity.client},
                                              {"pid", session.peer.pid},
                                              {"uid", session.peer.uid}});
  const MutexLock lock(&mutex_);
  sessions_[session.session_id] = Session{OwnerOf(session.identity), {}, kFirstSweep};
}

void CacheShareHost::SessionClosed(uint64_t session_id) {
  Session closed;
  {
    const MutexLock lock(&mutex_);
    const auto session = sessions_.find(session_id);
    if (session == sessions_.end()) return;
    closed = std::move(session->second);
    sessions_.erase(session);
  }
  int64_t released = 0;
  for (const uint64_t id : closed.lease_ids) {
    released += cache_->Release(closed.owner, id).ok() ? 1 : 0;
  }
  LogInfo("a process has closed its share of memory", {{"tenant", closed.owner.tenant},
                                                       {"client", closed.owner.client},
                                                       {"released_leases", released}});
}

absl::StatusOr<PlacedSlab> CacheShareHost::MapSlab(const ShareSessionInfo& session,
                                                   const MapSlabRequest& request) {
  if (request.pool >= cache_->pool_count()) {
    return absl::InvalidArgumentError(
        absl::StrCat("pool is ", request.pool, "; there are ", cache_->pool_count()));
  }
  const auto pool = static_cast<PoolId>(request.pool);
  const PoolGeometry geometry = cache_->pool_geometry(pool);
  if (request.slab >= geometry.slab_count) {
    return absl::InvalidArgumentError(absl::StrCat("slab is ", request.slab, "; pool ",
                                                   request.pool, " has ", geometry.slab_count));
  }
  TURBOKV_ASSIGN_OR_RETURN(
      const SlabShare share,
      cache_->ShareSlab(OwnerOf(session.identity), request.lease_id, pool, request.slab));
  return PlacedSlab{share.slab, {geometry.slab_bytes, geometry.slab_count}, share.generation};
}

}  // namespace turbokv
