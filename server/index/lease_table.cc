#include "server/index/lease_table.h"

#include <openssl/rand.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

size_t EntriesOf(const LeaseInfo& lease) { return lease.blocks.size() + (lease.tail ? 1 : 0); }

}  // namespace

absl::StatusOr<uint64_t> LeaseTable::Add(const ClientIdentity& owner,
                                         std::shared_ptr<LeaseInfo> lease) {
  const size_t lease_entries = EntriesOf(*lease);
  const MutexLock lock(&mutex_);
  if (leases_.size() >= max_leases_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("too many leases: ", leases_.size(), " of at most ", max_leases_));
  }
  if (lease_entries > max_entries_ - entries_) {
    return absl::ResourceExhaustedError(absl::StrCat("lease of ", lease_entries,
                                                     " entries: leases hold ", entries_,
                                                     " of at most ", max_entries_));
  }
  do {
    if (RAND_bytes(reinterpret_cast<uint8_t*>(&lease->id), sizeof(lease->id)) != 1) {
      return absl::InternalError("OpenSSL: random number generation failed");
    }
  } while (lease->id == 0 || leases_.contains(lease->id));
  const uint64_t id = lease->id;
  const Clock::time_point end = Clock::now() + absl::ToChronoNanoseconds(lease->duration);
  entries_ += lease_entries;
  by_end_.emplace(end, id);
  leases_.emplace(id, Lease{owner, end, std::move(lease)});
  return id;
}

absl::StatusOr<LeaseHandle> LeaseTable::Find(const ClientIdentity& owner, uint64_t id) {
  const MutexLock lock(&mutex_);
  TURBOKV_ASSIGN_OR_RETURN(const Leases::iterator lease, FindLive(owner, id));
  return lease->second.info;
}

absl::Status LeaseTable::Renew(const ClientIdentity& owner, uint64_t id, absl::Duration duration) {
  const MutexLock lock(&mutex_);
  TURBOKV_ASSIGN_OR_RETURN(const Leases::iterator lease, FindLive(owner, id));
  by_end_.erase({lease->second.end, id});
  lease->second.end = Clock::now() + absl::ToChronoNanoseconds(duration);
  by_end_.emplace(lease->second.end, id);
  return absl::OkStatus();
}

absl::Status LeaseTable::Remove(const ClientIdentity& owner, uint64_t id) {
  LeaseHandle ended;  // outlives the lock
  const MutexLock lock(&mutex_);
  TURBOKV_ASSIGN_OR_RETURN(const Leases::iterator lease, FindLive(owner, id));
  ended = Take(lease);
  return absl::OkStatus();
}

void LeaseTable::RemoveExpired() { TakeUntil(Clock::now()); }

void LeaseTable::RemoveAll() { TakeUntil(Clock::time_point::max()); }

int64_t LeaseTable::size() const {
  const MutexLock lock(&mutex_);
  return static_cast<int64_t>(leases_.size());
}

bool LeaseTable::full() const {
  const MutexLock lock(&mutex_);
  return leases_.size() >= max_leases_ || entries_ >= max_entries_;
}

absl::StatusOr<LeaseTable::Leases::iterator> LeaseTable::FindLive(const ClientIdentity& owner,
                                                                  uint64_t id) {
  const auto lease = leases_.find(id);
  if (lease == leases_.end() || lease->second.owner != owner || lease->second.end <= Clock::now()) {
    return absl::NotFoundError(
        absl::StrCat("lease ", id, " is unknown, expired, or another client's"));
  }
  return lease;
}

LeaseHandle LeaseTable::Take(Leases::iterator lease) {
  LeaseHandle info = std::move(lease->second.info);
  entries_ -= EntriesOf(*info);
  by_end_.erase({lease->second.end, lease->first});
  leases_.erase(lease);
  return info;
}

std::vector<LeaseHandle> LeaseTable::TakeUntil(Clock::time_point end) {
  std::vector<LeaseHandle> ended;
  const MutexLock lock(&mutex_);
  while (!by_end_.empty() && by_end_.begin()->first <= end) {
    ended.push_back(Take(leases_.find(by_end_.begin()->second)));
  }
  return ended;
}

}  // namespace turbokv
