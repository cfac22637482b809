// BlockCache: the entry index behind one mutex, beside key tags and leases.
#pragma once

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
  Impl(const BlockCacheOptions& options, KeyTagger tagger, std::unique_ptr<SlabPool> pool,
       Metrics* metrics)
      : options_(options),
        tagger_(tagger),
        metrics_(metrics),
        slab_bytes_(pool->slab_bytes()),
        leases_(options.max_leases, options.max_leased_entries),
        index_(std::move(pool)) {}

  // The cache that refs point back to; set once, before use.
  void set_cache(BlockCache* cache) { cache_ = cache; }

  absl::StatusOr<std::vector<PendingEntry>> Reserve(const ClientIdentity& owner,
                                                    absl::Span<const ReserveRequest> requests);
  int64_t Publish(absl::Span<PendingEntry> entries);
  absl::StatusOr<LookupOutcome> Lookup(const ClientIdentity& owner, const Digest& spec_fingerprint,
                                       absl::Span<const Digest> keys, const Digest* tail_key,
                                       absl::Duration lease);
  absl::StatusOr<absl::Duration> Renew(const ClientIdentity& owner, uint64_t lease_id,
                                       absl::Duration lease);
  int64_t Remove(const ClientIdentity& owner, absl::Span<const Digest> keys);
  void Discard(const EntryRef& entry);
  CacheUsage Usage() const;

  LeaseTable& leases() { return leases_; }

  // An entry that its holder (a pin, a pending entry) reads without the mutex.
  const Entry& HeldEntry(EntryId id) const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return const_cast<EntryIndex&>(index_).entry(id);
  }
  absl::Span<uint8_t> Page(EntryId id, int layer,
                           int page_of_layer) const ABSL_NO_THREAD_SAFETY_ANALYSIS;
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

  EntryRef MakeRef(EntryId pinned) const;
  absl::Duration ClampLease(absl::Duration lease) const;
  absl::Status CheckRequests(absl::Span<const ReserveRequest> requests) const;

  // Pins whatever is published under `tags`: refs[i] is empty where nothing is.
  std::vector<EntryRef> PinPublished(absl::Span<const BlockTag> tags);
  // Reserves entries for the requests without a ref in `present`.
  absl::Status ReserveAbsent(absl::Span<const ReserveRequest> requests,
                             absl::Span<const BlockTag> tags, absl::Span<const EntryRef> present,
                             absl::Span<PendingEntry> reserved);
  // One turn with the mutex: from requests[begin] on; returns where it stopped. OK with a result
  // of `begin`: no room.
  absl::StatusOr<size_t> ReserveSome(absl::Span<const ReserveRequest> requests,
                                     absl::Span<const BlockTag> tags,
                                     absl::Span<const EntryRef> present, size_t begin,
                                     absl::Span<PendingEntry> reserved);
  bool FitsBesideHeld(size_t bytes) const;
  absl::Status NoRoom(const Needs& needs) const;

  // Pins the longest prefix of `tags` that are blocks of the spec, onto lease->blocks.
  void PinPrefix(const Digest& spec_fingerprint, absl::Span<const BlockTag> tags, LeaseInfo* lease);
  // Returns how many of a batch matched.
  size_t PinPrefixOfBatch(const Digest& spec_fingerprint, absl::Span<const BlockTag> tags,
                          LeaseInfo* lease);
  void PinTail(const Digest& spec_fingerprint, const BlockTag& tag, LeaseInfo* lease);
  std::shared_ptr<LeaseInfo> NewLease(absl::Duration duration);
  void EndLease(LeaseInfo* lease);
  // Takes the pins of `refs` back, last first, so that parents are younger than children.
  void UnpinAll(absl::Span<EntryRef> refs);
  void CountLookup(const Digest& spec_fingerprint, int64_t hit_blocks, int64_t missed_blocks) const;

  const BlockCacheOptions options_;
  const KeyTagger tagger_;
  Metrics* const metrics_;
  const size_t slab_bytes_;
  BlockCache* cache_ = nullptr;
  LeaseTable leases_;
  mutable Mutex mutex_;
  EntryIndex index_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv
