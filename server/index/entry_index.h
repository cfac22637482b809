// Entries, their extents and their ages: the single-threaded core of BlockCache.
//
// An entry is held while it is pending, pinned or moved, and evictable while it is published and
// not pinned. A move copies an entry to another pool: its copy happens between BeginMove and
// EndMove, without the caller's lock, and takes effect only if nobody but the mover has pinned the
// entry meanwhile, so that what a lease reads never changes its place.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/index/entry.h"
#include "server/index/pool_space.h"
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
  // Pool 0 is host memory. At least one.
  explicit EntryIndex(std::vector<std::unique_ptr<SlabPool>> pools);

  // The record of `geometry` in `group`, kept until the matching DropGeometry. INVALID_ARGUMENT:
  // one that differs is already known under the same spec fingerprint and kind.
  absl::StatusOr<GeometryRecord*> HoldGeometry(const std::shared_ptr<const EntryGeometry>& geometry,
                                               uint64_t group);
  void DropGeometry(GeometryRecord* record);
  // Null: no entry has it.
  GeometryRecord* FindGeometry(const Digest& spec_fingerprint, EntryKind kind,
                               uint64_t group) const;

  // A pending entry in `pool`, evicting what is oldest there as needed; kNoEntry when what is held
  // leaves no room.
  EntryId Reserve(const BlockTag& tag, GeometryRecord* record, int tokens, PoolId pool);
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

  // Room in `pool` for a copy of `id`, which the caller has pinned; evicts there as needed.
  std::optional<Extent> BeginMove(EntryId id, PoolId pool);
  // Ends the move: the entry lies at `to` from now on if it was `copied` and the caller's pin is
  // the only one; else nothing has changed. Returns which.
  bool EndMove(EntryId id, PoolId pool, Extent to, bool copied);

  // Unlinks everything in `pool`, which takes nothing from now on. Returns how many entries.
  int64_t LosePool(PoolId pool);

  // Fields other than `pins`, `state` and the links do not change while an entry is held, and may
  // be read by its holder beside any call.
  Entry& entry(EntryId id) { return entries_[id]; }
  uint8_t* Address(const Entry& entry) const {
    return pools_[entry.pool]->slabs().Address(entry.extent);
  }

  // What was evicted since the last call.
  EvictionTally TakeEvictions() { return std::exchange(evictions_, {}); }

  PoolSpace& pool(PoolId id) { return *pools_[id]; }
  const PoolSpace& pool(PoolId id) const { return *pools_[id]; }
  size_t pool_count() const { return pools_.size(); }
  void FillUsage(CacheUsage* usage) const;

 private:
  using GeometryKey = std::tuple<Digest, EntryKind, uint64_t>;

  static GeometryKey KeyOf(const GeometryRecord& record);
  EntryId NewEntry();
  void Free(EntryId id);
  std::optional<Extent> Allocate(PoolId pool, const GeometryRecord& record, EntryId id);
  void CountVisible(const Entry& entry, int64_t delta);
  bool EvictFor(PoolId pool, const AgeList& wanted);
  void Evict(EntryId id);

  EntryArray entries_;
  std::vector<std::unique_ptr<PoolSpace>> pools_;
  TagTable tags_;
  EntryId first_free_entry_ = kNoEntry;
  absl::flat_hash_map<GeometryKey, std::unique_ptr<GeometryRecord>> geometries_;
  uint64_t uses_ = 0;
  int64_t tails_ = 0;
  std::vector<int64_t> blocks_;  // visible, by pool
  int64_t pending_ = 0;
  int64_t pinned_blocks_ = 0;
  int64_t evicted_blocks_ = 0;
  EvictionTally evictions_;
};

}  // namespace turbokv
