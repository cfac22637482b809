#include "server/index/tag_table.h"

#include <algorithm>
#include <vector>

namespace turbokv {
namespace {

constexpr size_t kFirstBuckets = 1024;

}  // namespace

TagTable::TagTable(EntryArray* entries, size_t max_entries)
    : entries_(entries),
      buckets_(std::max(max_entries, kFirstBuckets)),
      round_buckets_(kFirstBuckets) {
  for (size_t i = 0; i < kFirstBuckets && buckets_.Append(); ++i) buckets_[i] = kNoEntry;
}

size_t TagTable::BucketOf(const BlockTag& tag) const {
  const size_t bucket = tag.low & (round_buckets_ - 1);
  return bucket < next_split_ ? tag.low & (2 * round_buckets_ - 1) : bucket;
}

EntryId TagTable::Find(const BlockTag& tag) const {
  EntryId id = buckets_[BucketOf(tag)];
  while (id != kNoEntry && (*entries_)[id].tag != tag) id = (*entries_)[id].bucket_next;
  return id;
}

void TagTable::FindAll(absl::Span<const BlockTag> tags, absl::Span<EntryId> found) const {
  for (const BlockTag& tag : tags) __builtin_prefetch(&buckets_[BucketOf(tag)]);
  std::vector<uint32_t> open;  // positions whose chain has not ended yet
  open.reserve(tags.size());
  for (size_t i = 0; i < tags.size(); ++i) {
    found[i] = buckets_[BucketOf(tags[i])];
    if (found[i] == kNoEntry) continue;
    __builtin_prefetch(&(*entries_)[found[i]]);
    open.push_back(static_cast<uint32_t>(i));
  }
  // Every round moves each open position one link on, so that their cache misses overlap.
  while (!open.empty()) {
    size_t still_open = 0;
    for (const uint32_t i : open) {
      const Entry& entry = (*entries_)[found[i]];
      if (entry.tag == tags[i]) continue;
      found[i] = entry.bucket_next;
      if (found[i] == kNoEntry) continue;
      __builtin_prefetch(&(*entries_)[found[i]]);
      open[still_open++] = i;
    }
    open.resize(still_open);
  }
}

void TagTable::Insert(EntryId id) {
  Entry& entry = (*entries_)[id];
  EntryId& head = buckets_[BucketOf(entry.tag)];
  entry.bucket_next = head;
  head = id;
  if (++size_ > buckets_.size()) AddBucket();
}

void TagTable::Erase(EntryId id) {
  Entry& entry = (*entries_)[id];
  EntryId* link = &buckets_[BucketOf(entry.tag)];
  while (*link != id) link = &(*entries_)[*link].bucket_next;
  *link = entry.bucket_next;
  entry.bucket_next = kNoEntry;
  --size_;
}

void TagTable::AddBucket() {
  if (!buckets_.Append()) return;  // chains grow longer instead
  EntryId* stays = &buckets_[next_split_];
  EntryId* moves = &buckets_[next_split_ + round_buckets_];
  EntryId id = *stays;
  while (id != kNoEntry) {
    Entry& entry = (*entries_)[id];
    EntryId*& end = (entry.tag.low & round_buckets_) != 0 ? moves : stays;
    *end = id;
    end = &entry.bucket_next;
    id = entry.bucket_next;
  }
  *stays = kNoEntry;
  *moves = kNoEntry;
  if (++next_split_ == round_buckets_) {
    round_buckets_ *= 2;
    next_split_ = 0;
  }
}

}  // namespace turbokv
