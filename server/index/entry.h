// What the index keeps of an entry: one cache line.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "server/index/block_cache.h"
#include "server/index/chunked_array.h"
#include "server/index/key_tagger.h"
#include "server/pool/slab_pool.h"

namespace turbokv {

using EntryId = uint32_t;
inline constexpr EntryId kNoEntry = UINT32_MAX;

enum class EntryState : uint8_t {
  kFree,       // on the free list
  kPending,    // reserved, being filled, invisible
  kPublished,  // found by lookups
  kUnlinked,   // not found any more, kept only by its pins
};

// Evictable entries of one size class of one pool, oldest first.
struct AgeList {
  EntryId oldest = kNoEntry;
  EntryId youngest = kNoEntry;
  SizeClass size_class;
  int64_t geometries = 0;  // records that use this class
};

// A geometry that some entries of one group have.
struct GeometryRecord {
  std::shared_ptr<const EntryGeometry> geometry;
  uint64_t group = 0;
  std::vector<AgeList*> ages;  // one a pool
  int64_t holds = 0;           // entries that have it, and calls that work with it

  size_t class_bytes() const { return ages.front()->size_class.bytes; }
};

// Entries are in their class's age list exactly while they are published and not pinned.
struct alignas(64) Entry {
  BlockTag tag;
  GeometryRecord* record = nullptr;
  Extent extent;
  EntryId bucket_next = kNoEntry;  // next entry of the hash bucket, or of the free list
  EntryId older = kNoEntry;
  EntryId younger = kNoEntry;
  // Pins go from 0 to 1 and from 1 to 0 only under the cache's mutex; in between they move freely.
  std::atomic<uint32_t> pins{0};
  uint64_t last_use = 0;  // a count of uses, to compare ages between classes
  uint16_t tokens = 0;
  EntryState state = EntryState::kFree;
  PoolId pool = kHostPool;  // where `extent` lies; both change only by a move (entry_index.h)

  AgeList* ages() const { return record->ages[pool]; }
};
static_assert(sizeof(Entry) == 64);

using EntryArray = ChunkedArray<Entry>;

}  // namespace turbokv
