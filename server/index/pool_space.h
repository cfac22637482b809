// One pool as the index sees it: its extents, which slabs are held, and in which order entries may
// leave.
//
// An entry is held while it is pending, pinned or being moved. Entries that are published and not
// pinned stand in the age list of their size class, oldest first.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/index/entry.h"
#include "server/pool/slab_pool.h"

namespace turbokv {

// Threads: the caller serialises all calls.
class PoolSpace {
 public:
  // `entries` outlives this.
  PoolSpace(std::unique_ptr<SlabPool> slabs, EntryArray* entries);

  // The age list of a class, kept until the matching DropClass.
  AgeList* HoldClass(const SizeClass& size_class);
  void DropClass(AgeList* ages);

  void AppendYoungest(AgeList* ages, EntryId id, uint64_t now);
  void RemoveFromAges(AgeList* ages, EntryId id);

  void Hold(Extent extent);
  void Unhold(Extent extent);

  // The entries to let go so that an extent of `wanted` finds room, or for one more try: up to
  // `count` of its class, or all of one slab. Empty: nothing can go.
  std::vector<EntryId> VictimsFor(const AgeList& wanted, size_t count) const;

  // Owners of every extent in use.
  std::vector<EntryId> AllOwners() const;

  SlabPool& slabs() { return *slabs_; }
  const SlabPool& slabs() const { return *slabs_; }
  size_t held_bytes() const { return held_bytes_; }

  // A pool that was lost takes nothing any more.
  bool lost() const { return lost_; }
  void set_lost() { lost_ = true; }

 private:
  const AgeList* OldestClass() const;
  bool SlabIsUnheld(uint32_t slab) const { return held_in_slab_[slab] == 0; }
  std::optional<uint32_t> SmallestUnheldSlab() const;

  std::unique_ptr<SlabPool> slabs_;
  EntryArray& entries_;
  absl::flat_hash_map<SizeClass, std::unique_ptr<AgeList>> classes_;
  std::vector<uint32_t> held_in_slab_;
  size_t held_bytes_ = 0;
  bool lost_ = false;
};

}  // namespace turbokv
