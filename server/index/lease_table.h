// Leases by id: who holds which entries, and until when.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/index/block_cache.h"

namespace turbokv {

using LeaseHandle = std::shared_ptr<const LeaseInfo>;

// Threads: every method may be called from any thread. What a lease holds is let go after the
// table's mutex is released, wherever its last handle dies.
class LeaseTable {
 public:
  LeaseTable(size_t max_leases, size_t max_entries)
      : max_leases_(max_leases), max_entries_(max_entries) {}

  // Adds a lease that ends `lease->duration` from now, and sets its random id before it is seen.
  // RESOURCE_EXHAUSTED: a bound would be passed; INTERNAL without randomness.
  absl::StatusOr<uint64_t> Add(const ClientIdentity& owner, std::shared_ptr<LeaseInfo> lease);

  // NOT_FOUND: unknown, expired, or another client's.
  absl::StatusOr<LeaseHandle> Find(const ClientIdentity& owner, uint64_t id);
  absl::Status Renew(const ClientIdentity& owner, uint64_t id, absl::Duration duration);
  absl::Status Remove(const ClientIdentity& owner, uint64_t id);

  void RemoveExpired();
  void RemoveAll();

  int64_t size() const;
  // True: no further lease would be taken.
  bool full() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Lease {
    ClientIdentity owner;
    Clock::time_point end;
    LeaseHandle info;
  };
  using Leases = absl::flat_hash_map<uint64_t, Lease>;

  absl::StatusOr<Leases::iterator> FindLive(const ClientIdentity& owner, uint64_t id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Forgets the lease; the caller lets the handle go when the mutex is free.
  LeaseHandle Take(Leases::iterator lease) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<LeaseHandle> TakeUntil(Clock::time_point end);

  const size_t max_leases_;
  const size_t max_entries_;
  mutable Mutex mutex_;
  Leases leases_ ABSL_GUARDED_BY(mutex_);
  absl::btree_set<std::pair<Clock::time_point, uint64_t>> by_end_ ABSL_GUARDED_BY(mutex_);
  size_t entries_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace turbokv
