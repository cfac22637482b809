// BlockCache: the entry index behind one mutex, beside key tags and leases.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "base/mutex.h"
#include "server/index/block_cache.h"
#include "server/index/entry_index.h"
#include "server/index/key_tagger.h"
#include "server/index/lease_table.h"

namespace turbokv {

class BlockCache::Impl {
 public:
  Impl(const BlockCacheOptions& options, KeyTagger tagger,
       std::vector<std::unique_ptr<SlabPool>> pools, ExtentCopier* copier, Metrics* metrics);

  // The cache that refs point back to; set once, before use.
  void set_cache(BlockCache* cache) { cache_ = cache; }

  absl::StatusOr<std::vector<PendingEntry>> Reserve(const ClientIdentity& owner,
                                                    absl::Span<const ReserveRequest> requests);
  int64_t Publish(absl::Span<PendingEntry> entries);
  absl::StatusOr<LookupOutcome> Lookup(const ClientIdentity& owner, const Digest& spec_fingerprint,
                                       absl::Span<const Digest> keys, const Digest* tail_key,
                                       absl::Duration lease, std::optional<PoolId> move_to);
  absl::StatusOr<absl::Duration> Renew(const ClientIdentity& owner, uint64_t lease_id,
                                       absl::Duration lease);
  int64_t Remove(const ClientIdentity& owner, absl::Span<const Digest> keys);
  void Discard(const EntryRef& entry);
  absl::StatusOr<SlabShare> ShareSlab(const LeaseInfo& lease, PoolId pool, uint32_t slab);
  void LosePool(PoolId pool);
  CacheUsage Usage() const;

  size_t pool_count() const { return geometries_.size(); }
  PoolGeometry pool_geometry(PoolId pool) const { return geometries_[pool]; }

  LeaseTable& leases() { return leases_; }

  // An entry that its holder (a pin, a pending entry) reads without the mutex.
  const Entry& HeldEntry(EntryId id) const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return const_cast<EntryIndex&>(index_).entry(id);
  }
  absl::Span<uint8_t> Page(EntryId id, int layer,
                           int page_of_layer) const ABSL_NO_THREAD_SAFETY_ANALYSIS;
  Place PlaceOf(EntryId id) const ABSL_NO_THREAD_SAFETY_ANALYSIS;
  void AddPin(EntryId id) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    index_.entry(id).pins.fetch_add(1, std::memory_order_relaxed);
  }
  void Unpin(EntryId id);
  void GiveBack(EntryId id);

 private:
  struct Needs {
    size_t bytes = 0;
    int64_t entries = 0;
  };
  // Geometries are known by these.
  struct SpecInGroup {
    const Digest& fingerprint;
    uint64_t group;
  };
  using PoolNeeds = std::array<Needs, kMaxPools>;

  // What a call to Reserve works with.
  struct Reservation {
    absl::Span<const ReserveRequest> requests;
    std::vector<BlockTag> tags;
    uint64_t group = 0;
    std::vector<EntryRef> present;       // what is there already
    std::vector<PendingEntry> reserved;  // the result
  };

  EntryRef MakeRef(EntryId pinned) const;
  absl::Duration ClampLease(absl::Duration lease) const;
  absl::Status CheckRequests(absl::Span<const ReserveRequest> requests) const;

  // Pins whatever is published under `tags`: refs[i] is empty where nothing is.
  std::vector<EntryRef> PinPublished(absl::Span<const BlockTag> tags);
  // Reserves entries for the requests without a ref in `present`.
  absl::Status ReserveAbsent(Reservation* reservation);
  // One turn with the mutex: from requests[begin] on; returns where it stopped. OK with a result
  // of `begin`: no room. Without `evict_from_devices`, a device pool without room is no room.
  absl::StatusOr<size_t> ReserveSome(Reservation* reservation, size_t begin,
                                     bool evict_from_devices);
  absl::Status CheckRoom(const PoolNeeds& needs);
  bool FitsBesideHeld(const PoolNeeds& needs, PoolId* full) const;
  absl::Status NoRoom(const Needs& needs, PoolId pool) const;
  void CountEvictions(const EvictionTally& evicted) const;

  // Moves up to `count` of what is oldest in `pool` to host memory, so that an extent of the
  // geometry's class finds room. False: nothing could be moved.
  bool Demote(PoolId pool, const std::shared_ptr<const EntryGeometry>& geometry, uint64_t group,
              size_t count);
  // Moves what only this lease holds to `pool`.
  void Gather(PoolId pool, const LeaseInfo& lease);
  // Copies entries, each pinned by the caller, to `pool`, as many as find room without evicting
  // from a device. Returns how many lie there now.
  int64_t MoveTo(PoolId pool, absl::Span<const EntryId> pinned);

  uint64_t GroupOf(const ClientIdentity& owner) const {
    return options_.shareable ? tagger_.Group(owner.tenant) : 0;
  }

  // Pins the longest prefix of `tags` that are blocks of the spec, onto lease->blocks.
  void PinPrefix(const SpecInGroup& spec, absl::Span<const BlockTag> tags, LeaseInfo* lease);
  // Returns how many of a batch matched.
  size_t PinPrefixOfBatch(const SpecInGroup& spec, absl::Span<const BlockTag> tags,
                          LeaseInfo* lease);
  void PinTail(const SpecInGroup& spec, const BlockTag& tag, LeaseInfo* lease);
  std::shared_ptr<LeaseInfo> NewLease(absl::Duration duration);
  void EndLease(LeaseInfo* lease);
  // Takes the pins of `refs` back, last first, so that parents are younger than children.
  void UnpinAll(absl::Span<EntryRef> refs);
  void CountLookup(const SpecInGroup& spec, int64_t hit_blocks, int64_t missed_blocks) const;

  const BlockCacheOptions options_;
  const KeyTagger tagger_;
  Metrics* const metrics_;
  ExtentCopier* const copier_;
  const std::vector<PoolGeometry> geometries_;  // of the pools
  BlockCache* cache_ = nullptr;
  LeaseTable leases_;
  mutable Mutex mutex_;
  EntryIndex index_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv
