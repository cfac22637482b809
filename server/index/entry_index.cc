#include "server/index/entry_index.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"

namespace turbokv {
namespace {

size_t MaxEntries(const SlabPool& pool) {
  return std::min(pool.capacity_bytes() / kExtentAlignmentBytes, size_t{kMaxExtentOwner});
}

}  // namespace

EntryIndex::EntryIndex(std::unique_ptr<SlabPool> pool)
    : pool_(std::move(pool)),
      entries_(MaxEntries(*pool_)),
      tags_(&entries_, MaxEntries(*pool_)),
      held_in_slab_(pool_->slab_count()) {}

absl::StatusOr<GeometryRecord*> EntryIndex::HoldGeometry(
    const std::shared_ptr<const EntryGeometry>& geometry) {
  auto& record = geometries_[{geometry->spec_fingerprint, geometry->kind}];
  if (record == nullptr) {
    const size_t class_bytes = ExtentClassBytes(geometry->extent_bytes());
    auto& ages = classes_[class_bytes];
    if (ages == nullptr) {
      ages = std::make_unique<AgeList>();
      ages->class_bytes = class_bytes;
    }
    ++ages->geometries;
    record = std::make_unique<GeometryRecord>(GeometryRecord{geometry, ages.get(), 0});
  } else if (record->geometry != geometry &&
             (record->geometry->page_offsets_bytes != geometry->page_offsets_bytes ||
              record->geometry->pages_per_layer != geometry->pages_per_layer)) {
    return absl::InvalidArgumentError(
        absl::StrCat("geometry of ", geometry->extent_bytes(),
                     " bytes: differs from the known one of this spec fingerprint, of ",
                     record->geometry->extent_bytes(), " bytes"));
  }
  ++record->holds;
  return record.get();
}

void EntryIndex::DropGeometry(GeometryRecord* record) {
  if (--record->holds > 0) return;
  AgeList* const ages = record->ages;
  geometries_.erase({record->geometry->spec_fingerprint, record->geometry->kind});
  if (--ages->geometries == 0) classes_.erase(ages->class_bytes);
}

GeometryRecord* EntryIndex::FindGeometry(const Digest& spec_fingerprint, EntryKind kind) const {
  const auto it = geometries_.find({spec_fingerprint, kind});
  return it == geometries_.end() ? nullptr : it->second.get();
}

EntryId EntryIndex::Reserve(const BlockTag& tag, GeometryRecord* record, int tokens) {
  const AgeList& ages = *record->ages;
  EntryId id = NewEntry();
  if (id == kNoEntry && EvictFor(ages)) id = NewEntry();
  if (id == kNoEntry) return kNoEntry;
  std::optional<Extent> extent = pool_->Allocate(ages.class_bytes, id);
  while (!extent.has_value() && EvictFor(ages)) extent = pool_->Allocate(ages.class_bytes, id);
  Entry& entry = entries_[id];
  if (!extent.has_value()) {
    entry.bucket_next = first_free_entry_;
    first_free_entry_ = id;
    return kNoEntry;
  }
  entry.tag = tag;
  entry.record = record;
  entry.extent = *extent;
  entry.tokens = static_cast<uint16_t>(tokens);
  entry.state = EntryState::kPending;
  ++record->holds;
  ++pending_;
  Hold(entry);
  return id;
}

bool EntryIndex::Publish(EntryId id) {
  Entry& entry = entries_[id];
  if (tags_.Find(entry.tag) != kNoEntry) {
    GiveBack(id);
    return false;
  }
  --pending_;
  entry.state = EntryState::kPublished;
  tags_.Insert(id);
  CountVisible(entry, 1);
  Unhold(entry);
  AppendYoungest(id);
  return true;
}

void EntryIndex::GiveBack(EntryId id) {
  --pending_;
  Unhold(entries_[id]);
  Free(id);
}

void EntryIndex::FindAll(absl::Span<const BlockTag> tags, absl::Span<EntryId> found) const {
  tags_.FindAll(tags, found);
}

void EntryIndex::PrefetchForPin(EntryId id) const {
  const Entry& entry = entries_[id];
  if (entry.older != kNoEntry) __builtin_prefetch(&entries_[entry.older], 1);
  if (entry.younger != kNoEntry) __builtin_prefetch(&entries_[entry.younger], 1);
}

void EntryIndex::Pin(EntryId id) {
  Entry& entry = entries_[id];
  if (entry.pins.fetch_add(1, std::memory_order_relaxed) > 0) return;
  RemoveFromAges(id);
  Hold(entry);
  if (entry.record->geometry->kind == EntryKind::kBlock) ++pinned_blocks_;
}

void EntryIndex::Unpin(EntryId id) {
  Entry& entry = entries_[id];
  if (entry.pins.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  Unhold(entry);
  if (entry.record->geometry->kind == EntryKind::kBlock) --pinned_blocks_;
  if (entry.state == EntryState::kPublished) {
    AppendYoungest(id);
  } else {
    Free(id);
  }
}

void EntryIndex::Unlink(EntryId id) {
  Entry& entry = entries_[id];
  tags_.Erase(id);
  CountVisible(entry, -1);
  entry.state = EntryState::kUnlinked;
  if (entry.pins.load(std::memory_order_acquire) > 0) return;
  RemoveFromAges(id);
  Free(id);
}

bool EntryIndex::Remove(const BlockTag& tag) {
  const EntryId id = tags_.Find(tag);
  if (id == kNoEntry) return false;
  Unlink(id);
  return true;
}

EntryId EntryIndex::NewEntry() {
  if (first_free_entry_ != kNoEntry) {
    return std::exchange(first_free_entry_, entries_[first_free_entry_].bucket_next);
  }
  const size_t id = entries_.size();
  return id <= kMaxExtentOwner && entries_.Append() ? static_cast<EntryId>(id) : kNoEntry;
}

void EntryIndex::Free(EntryId id) {
  Entry& entry = entries_[id];
  pool_->Free(entry.extent);
  DropGeometry(entry.record);
  entry.record = nullptr;
  entry.state = EntryState::kFree;
  entry.bucket_next = std::exchange(first_free_entry_, id);
}

void EntryIndex::Hold(const Entry& entry) {
  ++held_in_slab_[entry.extent.slab];
  held_bytes_ += entry.record->ages->class_bytes;
}

void EntryIndex::Unhold(const Entry& entry) {
  --held_in_slab_[entry.extent.slab];
  held_bytes_ -= entry.record->ages->class_bytes;
}

void EntryIndex::AppendYoungest(EntryId id) {
  Entry& entry = entries_[id];
  AgeList& ages = *entry.record->ages;
  entry.last_use = ++uses_;
  entry.younger = kNoEntry;
  entry.older = std::exchange(ages.youngest, id);
  (entry.older == kNoEntry ? ages.oldest : entries_[entry.older].younger) = id;
}

void EntryIndex::RemoveFromAges(EntryId id) {
  Entry& entry = entries_[id];
  AgeList& ages = *entry.record->ages;
  (entry.older == kNoEntry ? ages.oldest : entries_[entry.older].younger) = entry.younger;
  (entry.younger == kNoEntry ? ages.youngest : entries_[entry.younger].older) = entry.older;
}

void EntryIndex::CountVisible(const Entry& entry, int64_t delta) {
  (entry.record->geometry->kind == EntryKind::kBlock ? blocks_ : tails_) += delta;
}

// Makes room for an extent of class `wanted`, or for one more try; false: nothing can be evicted.
bool EntryIndex::EvictFor(const AgeList& wanted) {
  const AgeList* eldest = OldestClass();
  if (eldest == nullptr) return false;
  if (eldest->class_bytes != wanted.class_bytes) {
    // One extent of another class is no use: its whole slab has to change class.
    const uint32_t slab = entries_[eldest->oldest].extent.slab;
    if (SlabIsUnheld(slab)) {
      EvictSlab(slab);
      return true;
    }
    if (wanted.oldest == kNoEntry) return EvictUnheldSlab();
  }
  Evict(wanted.oldest);
  return true;
}

AgeList* EntryIndex::OldestClass() const {
  AgeList* oldest = nullptr;
  for (const auto& [class_bytes, ages] : classes_) {
    if (ages->oldest == kNoEntry) continue;
    if (oldest == nullptr || entries_[ages->oldest].last_use < entries_[oldest->oldest].last_use) {
      oldest = ages.get();
    }
  }
  return oldest;
}

// Evicts the slab with the fewest entries among those that nobody holds.
bool EntryIndex::EvictUnheldSlab() {
  uint32_t best = pool_->slab_count();
  for (uint32_t slab = 0; slab < pool_->slab_count(); ++slab) {
    if (!SlabIsUnheld(slab) || pool_->used_extents(slab) == 0) continue;
    if (best == pool_->slab_count() || pool_->used_extents(slab) < pool_->used_extents(best)) {
      best = slab;
    }
  }
  if (best == pool_->slab_count()) return false;
  EvictSlab(best);
  return true;
}

void EntryIndex::EvictSlab(uint32_t slab) {
  for (const EntryId id : pool_->Owners(slab)) Evict(id);
}

void EntryIndex::Evict(EntryId id) {
  const GeometryRecord& record = *entries_[id].record;
  if (record.geometry->kind == EntryKind::kBlock) {
    ++evictions_.blocks;
    ++evicted_blocks_;
  }
  evictions_.bytes += static_cast<int64_t>(record.geometry->extent_bytes());
  Unlink(id);
}

void EntryIndex::FillUsage(CacheUsage* usage) const {
  usage->budget_bytes = pool_->capacity_bytes();
  usage->used_bytes = pool_->used_bytes();
  usage->reserved_bytes = pool_->reserved_bytes();
  usage->blocks = blocks_;
  usage->tails = tails_;
  usage->leased_blocks = pinned_blocks_;
  usage->pending_entries = pending_;
  usage->evicted_blocks = evicted_blocks_;
  usage->index_bytes = entries_.bytes() + tags_.bytes() + pool_->bookkeeping_bytes();
}

}  // namespace turbokv
