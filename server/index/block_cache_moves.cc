// Moves of entries between pools, and what else concerns pools as a whole.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "server/index/block_cache_impl.h"
#include "server/telemetry/metrics.h"

namespace turbokv {

bool BlockCache::Impl::Demote(PoolId pool, const std::shared_ptr<const EntryGeometry>& geometry,
                              uint64_t group, size_t count) {
  if (copier_ == nullptr) return false;
  std::vector<EntryId> victims;
  {
    const MutexLock lock(&mutex_);
    const absl::StatusOr<GeometryRecord*> record = index_.HoldGeometry(geometry, group);
    if (!record.ok()) return false;
    victims = index_.pool(pool).VictimsFor(*(*record)->ages[pool], count);
    for (const EntryId id : victims) index_.Pin(id);
    index_.DropGeometry(*record);
  }
  const int64_t moved = MoveTo(kHostPool, victims);
  const MutexLock lock(&mutex_);
  for (const EntryId id : victims) index_.Unpin(id);
  return moved > 0;
}

void BlockCache::Impl::Gather(PoolId pool, const LeaseInfo& lease) {
  if (copier_ == nullptr) return;
  std::vector<EntryId> elsewhere;
  for (const EntryRef& block : lease.blocks) {
    if (block.pool() != pool) elsewhere.push_back(block.entry_);
  }
  if (elsewhere.empty()) return;
  const std::shared_ptr<const EntryGeometry> geometry =
      HeldEntry(elsewhere.front()).record->geometry;
  const uint64_t group = HeldEntry(elsewhere.front()).record->group;
  for (absl::Span<const EntryId> left = elsewhere; !left.empty();) {
    const int64_t moved = MoveTo(pool, left);
    left.remove_prefix(static_cast<size_t>(moved));
    if (left.empty() || pool == kHostPool || !Demote(pool, geometry, group, left.size())) return;
  }
}

int64_t BlockCache::Impl::MoveTo(PoolId pool, absl::Span<const EntryId> pinned) {
  struct Move {
    EntryId id;
    Extent to;
  };
  std::vector<Move> moves;
  std::vector<ExtentCopy> copies;
  EvictionTally evicted;
  {
    const MutexLock lock(&mutex_);
    for (const EntryId id : pinned) {
      const Entry& entry = index_.entry(id);
      const bool may_evict = pool == kHostPool;
      if (!may_evict && !index_.pool(pool).slabs().HasRoom(entry.record->ages[pool]->size_class)) {
        break;
      }
      const std::optional<Extent> to = index_.BeginMove(id, pool);
      if (!to) break;
      moves.push_back({id, *to});
      copies.push_back({entry.pool, index_.Address(entry), pool,
                        index_.pool(pool).slabs().Address(*to),
                        entry.record->geometry->extent_bytes()});
    }
    evicted = index_.TakeEvictions();
  }
  CountEvictions(evicted);
  if (moves.empty()) return 0;
  const absl::Status copied = copier_->Copy(copies);
  if (!copied.ok()) LogWarning("blocks stay where they are", {{"reason", copied.message()}});
  int64_t moved = 0;
  int64_t moved_bytes = 0;
  {
    const MutexLock lock(&mutex_);
    for (size_t i = 0; i < moves.size(); ++i) {
      if (!index_.EndMove(moves[i].id, pool, moves[i].to, copied.ok())) continue;
      ++moved;
      moved_bytes += static_cast<int64_t>(copies[i].bytes);
    }
  }
  if (metrics_ != nullptr) metrics_->CountMove(pool != kHostPool, moved, moved_bytes);
  return moved;
}

absl::StatusOr<SlabShare> BlockCache::Impl::ShareSlab(const LeaseInfo& lease, PoolId pool,
                                                      uint32_t slab) {
  const auto lies_there = [&](const EntryRef& entry) {
    return entry && entry.pool() == pool && HeldEntry(entry.entry_).extent.slab == slab;
  };
  if (!lies_there(lease.tail) &&
      std::none_of(lease.blocks.begin(), lease.blocks.end(), lies_there)) {
    return absl::NotFoundError(
        absl::StrCat("lease ", lease.id, " has no pages in slab ", slab, " of pool ", pool));
  }
  const MutexLock lock(&mutex_);
  SlabPool& slabs = index_.pool(pool).slabs();
  TURBOKV_ASSIGN_OR_RETURN(const SharedSlab shared, slabs.Share(slab));
  return SlabShare{shared, slabs.generation(slab)};
}

void BlockCache::Impl::LosePool(PoolId pool) {
  const MutexLock lock(&mutex_);
  const int64_t entries = index_.LosePool(pool);
  LogError("a pool is lost with its device", {{"pool", pool}, {"entries", entries}});
}

}  // namespace turbokv
