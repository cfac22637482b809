// A service behind the share server: one pool of memfds, leases that are fine unless they are 0.
#pragma once

#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "server/share/share_host.h"
#include "tests/unit/client/share/share_testing.h"

namespace turbokv::testing {

class FakeShareHost : public ShareHost {
 public:
  static constexpr SlabGeometry kGeometry = {.slab_bytes = 16384, .slab_count = 4};

  FakeShareHost() {
    for (uint32_t slab = 0; slab < kGeometry.slab_count; ++slab) {
      slabs_.push_back({FilledMemfd(kGeometry.slab_bytes, slab + 1), 0});
    }
  }

  // Fresh memory full of `fill`.
  void Renew(uint32_t slab, uint8_t fill) {
    MutexLock lock(&mutex_);
    slabs_[slab].fd = FilledMemfd(kGeometry.slab_bytes, fill);
    ++slabs_[slab].generation;
  }

  void SessionOpened(const ShareSessionInfo& session) override {
    MutexLock lock(&mutex_);
    open_[session.session_id] = session;
    ++opened_;
  }

  void SessionClosed(uint64_t session_id) override {
    MutexLock lock(&mutex_);
    if (open_.erase(session_id) != 1) std::abort();
  }

  absl::StatusOr<PlacedSlab> MapSlab(const ShareSessionInfo& session,
                                     const MapSlabRequest& request) override {
    MutexLock lock(&mutex_);
    if (open_.count(session.session_id) != 1) std::abort();
    if (request.lease_id == 0) return absl::NotFoundError("lease 0: unknown or expired");
    if (request.pool != 0 || request.slab >= slabs_.size()) {
      return absl::InvalidArgumentError(absl::StrCat("slab ", request.slab, ": no such slab"));
    }
    PlacedSlab slab;
    slab.memory.kind = ShareKind::kMemfd;
    slab.memory.fd = fcntl(slabs_[request.slab].fd.get(), F_DUPFD_CLOEXEC, 0);
    slab.geometry = kGeometry;
    slab.generation = slabs_[request.slab].generation;
    return slab;
  }

  std::vector<ShareSessionInfo> open_sessions() {
    MutexLock lock(&mutex_);
    std::vector<ShareSessionInfo> sessions;
    for (const auto& [id, session] : open_) sessions.push_back(session);
    return sessions;
  }
  size_t opened() {
    MutexLock lock(&mutex_);
    return opened_;
  }

 private:
  struct Slab {
    UniqueFd fd;
    uint64_t generation;
  };

  Mutex mutex_;
  std::vector<Slab> slabs_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, ShareSessionInfo> open_ ABSL_GUARDED_BY(mutex_);
  size_t opened_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace turbokv::testing
