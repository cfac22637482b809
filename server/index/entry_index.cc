#include "server/index/entry_index.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"

namespace turbokv {
namespace {

size_t MaxEntries(const std::vector<std::unique_ptr<SlabPool>>& pools) {
  size_t entries = 0;
  for (const auto& pool : pools) entries += pool->capacity_bytes() / kExtentAlignmentBytes;
  return std::min(entries, size_t{kMaxExtentOwner});
}

}  // namespace

EntryIndex::EntryIndex(std::vector<std::unique_ptr<SlabPool>> pools)
    : entries_(MaxEntries(pools)), tags_(&entries_, MaxEntries(pools)), blocks_(pools.size()) {
  for (auto& pool : pools) {
    pools_.push_back(std::make_unique<PoolSpace>(std::move(pool), &entries_));
  }
}

EntryIndex::GeometryKey EntryIndex::KeyOf(const GeometryRecord& record) {
  return {record.geometry->spec_fingerprint, record.geometry->kind, record.group};
}

absl::StatusOr<GeometryRecord*> EntryIndex::HoldGeometry(
    const std::shared_ptr<const EntryGeometry>& geometry, uint64_t group) {
  auto& record = geometries_[{geometry->spec_fingerprint, geometry->kind, group}];
  if (record == nullptr) {
    record = std::make_unique<GeometryRecord>(GeometryRecord{geometry, group, {}, 0});
    const SizeClass size_class{ExtentClassBytes(geometry->extent_bytes()), group};
    for (const auto& pool : pools_) record->ages.push_back(pool->HoldClass(size_class));
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
  for (size_t pool = 0; pool < pools_.size(); ++pool) pools_[pool]->DropClass(record->ages[pool]);
  geometries_.erase(KeyOf(*record));
}

GeometryRecord* EntryIndex::FindGeometry(const Digest& spec_fingerprint, EntryKind kind,
                                         uint64_t group) const {
  const auto it = geometries_.find({spec_fingerprint, kind, group});
  return it == geometries_.end() ? nullptr : it->second.get();
}

EntryId EntryIndex::Reserve(const BlockTag& tag, GeometryRecord* record, int tokens, PoolId pool) {
  EntryId id = NewEntry();
  if (id == kNoEntry && EvictFor(pool, *record->ages[pool])) id = NewEntry();
  if (id == kNoEntry) return kNoEntry;
  const std::optional<Extent> extent = Allocate(pool, *record, id);
  Entry& entry = entries_[id];
  if (!extent.has_value()) {
    entry.bucket_next = first_free_entry_;
    first_free_entry_ = id;
    return kNoEntry;
  }
  entry.tag = tag;
  entry.record = record;
  entry.extent = *extent;
  entry.pool = pool;
  entry.tokens = static_cast<uint16_t>(tokens);
  entry.state = EntryState::kPending;
  ++record->holds;
  ++pending_;
  pools_[pool]->Hold(entry.extent);
  return id;
}

std::optional<Extent> EntryIndex::Allocate(PoolId pool, const GeometryRecord& record, EntryId id) {
  PoolSpace& space = *pools_[pool];
  if (space.lost()) return std::nullopt;
  const AgeList& ages = *record.ages[pool];
  std::optional<Extent> extent = space.slabs().Allocate(ages.size_class, id);
  while (!extent.has_value() && EvictFor(pool, ages)) {
    extent = space.slabs().Allocate(ages.size_class, id);
  }
  return extent;
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
  PoolSpace& pool = *pools_[entry.pool];
  pool.Unhold(entry.extent);
  pool.AppendYoungest(entry.ages(), id, ++uses_);
  return true;
}

void EntryIndex::GiveBack(EntryId id) {
  --pending_;
  pools_[entries_[id].pool]->Unhold(entries_[id].extent);
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
  pools_[entry.pool]->RemoveFromAges(entry.ages(), id);
  pools_[entry.pool]->Hold(entry.extent);
  if (entry.record->geometry->kind == EntryKind::kBlock) ++pinned_blocks_;
}

void EntryIndex::Unpin(EntryId id) {
  Entry& entry = entries_[id];
  if (entry.pins.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  pools_[entry.pool]->Unhold(entry.extent);
  if (entry.record->geometry->kind == EntryKind::kBlock) --pinned_blocks_;
  if (entry.state == EntryState::kPublished) {
    pools_[entry.pool]->AppendYoungest(entry.ages(), id, ++uses_);
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
  pools_[entry.pool]->RemoveFromAges(entry.ages(), id);
  Free(id);
}

bool EntryIndex::Remove(const BlockTag& tag) {
  const EntryId id = tags_.Find(tag);
  if (id == kNoEntry) return false;
  Unlink(id);
  return true;
}

std::optional<Extent> EntryIndex::BeginMove(EntryId id, PoolId pool) {
  const std::optional<Extent> to = Allocate(pool, *entries_[id].record, id);
  if (to) pools_[pool]->Hold(*to);
  return to;
}

bool EntryIndex::EndMove(EntryId id, PoolId pool, Extent to, bool copied) {
  Entry& entry = entries_[id];
  const bool moved = copied && entry.pins.load(std::memory_order_acquire) == 1 &&
                     entry.state == EntryState::kPublished && !pools_[pool]->lost();
  const PoolId freed_pool = moved ? entry.pool : pool;
  const Extent freed = moved ? entry.extent : to;
  if (moved) {
    CountVisible(entry, -1);
    entry.extent = to;
    entry.pool = pool;
    CountVisible(entry, 1);
  }
  pools_[freed_pool]->Unhold(freed);
  pools_[freed_pool]->slabs().Free(freed);
  return moved;
}

int64_t EntryIndex::LosePool(PoolId pool) {
  pools_[pool]->set_lost();
  int64_t lost = 0;
  for (const EntryId id : pools_[pool]->AllOwners()) {
    // An extent that a move is about to fill has its entry elsewhere.
    if (entries_[id].pool != pool || entries_[id].state != EntryState::kPublished) continue;
    Unlink(id);
    ++lost;
  }
  return lost;
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
  pools_[entry.pool]->slabs().Free(entry.extent);
  DropGeometry(entry.record);
  entry.record = nullptr;
  entry.state = EntryState::kFree;
  entry.bucket_next = std::exchange(first_free_entry_, id);
}

void EntryIndex::CountVisible(const Entry& entry, int64_t delta) {
  (entry.record->geometry->kind == EntryKind::kBlock ? blocks_[entry.pool] : tails_) += delta;
}

// Makes room for an extent of class `wanted`, or for one more try; false: nothing can be evicted.
bool EntryIndex::EvictFor(PoolId pool, const AgeList& wanted) {
  const std::vector<EntryId> victims = pools_[pool]->VictimsFor(wanted, 1);
  for (const EntryId id : victims) Evict(id);
  return !victims.empty();
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
  usage->index_bytes = entries_.bytes() + tags_.bytes();
  for (size_t i = 0; i < pools_.size(); ++i) {
    const SlabPool& slabs = pools_[i]->slabs();
    PoolUsage pool;
    pool.budget_bytes = slabs.capacity_bytes();
    pool.used_bytes = slabs.used_bytes();
    pool.reserved_bytes = slabs.reserved_bytes();
    pool.blocks = blocks_[i];
    pool.lost = pools_[i]->lost();
    usage->budget_bytes += pool.budget_bytes;
    usage->used_bytes += pool.used_bytes;
    usage->reserved_bytes += pool.reserved_bytes;
    usage->blocks += pool.blocks;
    usage->index_bytes += slabs.bookkeeping_bytes();
    usage->pools.push_back(pool);
  }
  usage->tails = tails_;
  usage->leased_blocks = pinned_blocks_;
  usage->pending_entries = pending_;
  usage->evicted_blocks = evicted_blocks_;
}

}  // namespace turbokv
