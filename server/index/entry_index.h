// Entries, their extents and their ages: the single-threaded core of BlockCache.
//
// An entry is held while it is pending or pinned, and evictable while it is published and not
// pinned. Evictable entries stand in the age list of their size class, ordered by last use.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/index/entry.h"
#include "server/index/tag_table.h"
#include "server/pool/slab_pool.h"

namespace turbokv {

struct EvictionTally {
  int64_t blocks = 0;
  int64_t bytes = 0;
};

// Threads: the caller serialises all calls; see entry() for the exception.
class EntryIndex {
 public:
  explicit EntryIndex(std::unique_ptr<SlabPool> pool);

  // The record of `geometry`, kept until the matching DropGeometry. INVALID_ARGUMENT: one that
  // differs is already known under the same spec fingerprint and kind.
  absl::StatusOr<GeometryRecord*> HoldGeometry(
      const std::shared_ptr<const EntryGeometry>& geometry);
  void DropGeometry(GeometryRecord* record);
  // Null: no entry has it.
  GeometryRecord* FindGeometry(const Digest& spec_fingerprint, EntryKind kind) const;

  // A pending entry, evicting what is oldest as needed; kNoEntry when what is held leaves no room.
  EntryId Reserve(const BlockTag& tag, GeometryRecord* record, int tokens);
  // Touches what Publish will need.
  void PrefetchForPublish(EntryId id) const { tags_.Prefetch(entries_[id].tag); }
  // Makes a pending entry visible; false, and the entry is gone, when its tag is taken.
  bool Publish(EntryId id);
  // Ends a pending entry that is not to be published.
  void GiveBack(EntryId id);

  // Found entries are published.
  void FindAll(absl::Span<const BlockTag> tags, absl::Span<EntryId> found) const;
  // Adds a pin to a published entry. PrefetchForPin touches what Pin will need.
  void PrefetchForPin(EntryId id) const;
  void Pin(EntryId id);
  // Takes a pin back; the last one makes the entry evictable, or frees it when it was unlinked.
  void Unpin(EntryId id);
  // Hides a published entry for good; freed at once, or by its last Unpin.
  void Unlink(EntryId id);
  // Unlinks the published entry with this tag, if there is one.
  bool Remove(const BlockTag& tag);

  // Fields other than `pins`, `state` and the links do not change while an entry is held, and may
  // be read by its holder beside any call.
  Entry& entry(EntryId id) { return entries_[id]; }
  uint8_t* Address(const Entry& entry) const { return pool_->Address(entry.extent); }

  // What was evicted since the last call.
  EvictionTally TakeEvictions() { return std::exchange(evictions_, {}); }

  const SlabPool& pool() const { return *pool_; }
  size_t held_bytes() const { return held_bytes_; }
  void FillUsage(CacheUsage* usage) const;

 private:
  using GeometryKey = std::pair<Digest, EntryKind>;

  EntryId NewEntry();
  void Free(EntryId id);
  void Hold(const Entry& entry);
  void Unhold(const Entry& entry);
  void AppendYoungest(EntryId id);
  void RemoveFromAges(EntryId id);
  void CountVisible(const Entry& entry, int64_t delta);

  bool EvictFor(const AgeList& wanted);
  AgeList* OldestClass() const;
  bool EvictUnheldSlab();
  bool SlabIsUnheld(uint32_t slab) const { return held_in_slab_[slab] == 0; }
  void EvictSlab(uint32_t slab);
  void Evict(EntryId id);

  std::unique_ptr<SlabPool> pool_;
  EntryArray entries_;
  TagTable tags_;
  EntryId first_free_entry_ = kNoEntry;
  absl::flat_hash_map<GeometryKey, std::unique_ptr<GeometryRecord>> geometries_;
  absl::flat_hash_map<size_t, std::unique_ptr<AgeList>> classes_;
  std::vector<uint32_t> held_in_slab_;
  size_t held_bytes_ = 0;
  uint64_t uses_ = 0;
  int64_t blocks_ = 0;
  int64_t tails_ = 0;
  int64_t pending_ = 0;
  int64_t pinned_blocks_ = 0;
  int64_t evicted_blocks_ = 0;
  EvictionTally evictions_;
};

}  // namespace turbokv
