// Finds entries by tag: a chained hash table that grows one bucket at a time (linear hashing), so
// that no insertion ever waits for a rehash. Tags are uniform already; their low bits choose.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "server/index/entry.h"

namespace turbokv {

// Threads: the caller serialises all calls.
class TagTable {
 public:
  // `entries` outlives the table, which links them by `bucket_next`.
  TagTable(EntryArray* entries, size_t max_entries);

  EntryId Find(const BlockTag& tag) const;
  // found[i] = Find(tags[i]), with the memory accesses of all of them overlapped.
  void FindAll(absl::Span<const BlockTag> tags, absl::Span<EntryId> found) const;

  // Touches the memory that Find and Insert begin with.
  void Prefetch(const BlockTag& tag) const { __builtin_prefetch(&buckets_[BucketOf(tag)], 1); }

  // Precondition: no entry with this tag is in the table.
  void Insert(EntryId id);
  // Precondition: `id` is in the table.
  void Erase(EntryId id);

  size_t size() const { return size_; }
  size_t bytes() const { return buckets_.bytes(); }

 private:
  size_t BucketOf(const BlockTag& tag) const;
  void AddBucket();

  EntryArray* const entries_;
  ChunkedArray<EntryId> buckets_;  // heads of chains
  size_t size_ = 0;
  size_t round_buckets_;   // a power of two: buckets at the start of this round of splits
  size_t next_split_ = 0;  // buckets before this one have been split in this round
};

}  // namespace turbokv
