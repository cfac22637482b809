#include "server/index/block_cache.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/index/block_cache_impl.h"

namespace turbokv {

EntryRef::EntryRef(const EntryRef& other) : cache_(other.cache_), entry_(other.entry_) {
  if (cache_ != nullptr) cache_->impl_->AddPin(entry_);
}

EntryRef::EntryRef(EntryRef&& other) noexcept
    : cache_(std::exchange(other.cache_, nullptr)), entry_(other.entry_) {}

EntryRef& EntryRef::operator=(EntryRef other) noexcept {
  std::swap(cache_, other.cache_);
  std::swap(entry_, other.entry_);
  return *this;
}

EntryRef::~EntryRef() {
  if (cache_ != nullptr) cache_->impl_->Unpin(entry_);
}

const EntryGeometry& EntryRef::geometry() const {
  return *cache_->impl_->HeldEntry(entry_).record->geometry;
}

absl::Span<const uint8_t> EntryRef::page(int layer, int index) const {
  return cache_->impl_->Page(entry_, layer, index);
}

PoolId EntryRef::pool() const { return cache_->impl_->HeldEntry(entry_).pool; }

Place EntryRef::place() const { return cache_->impl_->PlaceOf(entry_); }

int EntryRef::tokens() const { return cache_->impl_->HeldEntry(entry_).tokens; }

PendingEntry::PendingEntry(PendingEntry&& other) noexcept
    : cache_(std::exchange(other.cache_, nullptr)), entry_(other.entry_) {}

PendingEntry& PendingEntry::operator=(PendingEntry&& other) noexcept {
  std::swap(cache_, other.cache_);
  std::swap(entry_, other.entry_);
  return *this;
}

PendingEntry::~PendingEntry() {
  if (cache_ != nullptr) cache_->impl_->GiveBack(entry_);
}

absl::Span<uint8_t> PendingEntry::page(int layer, int index) const {
  return cache_->impl_->Page(entry_, layer, index);
}

PoolId PendingEntry::pool() const { return cache_->impl_->HeldEntry(entry_).pool; }

absl::StatusOr<std::unique_ptr<BlockCache>> BlockCache::Create(const BlockCacheOptions& options,
                                                               Metrics* metrics,
                                                               DevicePools devices) {
  if (options.default_lease <= absl::ZeroDuration() || options.default_lease > options.max_lease ||
      options.max_lease > kMaxLeaseLimit) {
    return absl::InvalidArgumentError(
        absl::StrCat("default lease ", absl::FormatDuration(options.default_lease),
                     ", longest lease ", absl::FormatDuration(options.max_lease),
                     ": need 0 < default <= longest <= ", absl::FormatDuration(kMaxLeaseLimit)));
  }
  if (options.max_leases == 0 || options.max_leased_entries == 0) {
    return absl::InvalidArgumentError("bounds on leases: must be positive");
  }
  if (devices.arenas.size() >= kMaxPools) {
    return absl::InvalidArgumentError(
        absl::StrCat(devices.arenas.size(), " device pools: at most ", kMaxPools - 1));
  }
  TURBOKV_ASSIGN_OR_RETURN(
      std::unique_ptr<Arena> host,
      MakeHostArena(options.budget_bytes, ChooseSlabBytes(options.budget_bytes, options.slab_bytes),
                    options.shareable));
  std::vector<std::unique_ptr<Arena>> arenas;
  arenas.push_back(std::move(host));
  for (auto& arena : devices.arenas) arenas.push_back(std::move(arena));
  std::vector<std::unique_ptr<SlabPool>> pools;
  for (auto& arena : arenas) {
    TURBOKV_ASSIGN_OR_RETURN(pools.emplace_back(), SlabPool::Create(std::move(arena)));
  }
  TURBOKV_ASSIGN_OR_RETURN(KeyTagger tagger, KeyTagger::Create());
  return absl::WrapUnique(new BlockCache(
      std::make_unique<Impl>(options, tagger, std::move(pools), devices.copier, metrics)));
}

BlockCache::BlockCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
  impl_->set_cache(this);
}

BlockCache::~BlockCache() { impl_->leases().RemoveAll(); }

absl::StatusOr<std::vector<PendingEntry>> BlockCache::Reserve(
    const ClientIdentity& owner, absl::Span<const ReserveRequest> requests) {
  return impl_->Reserve(owner, requests);
}

int64_t BlockCache::Publish(std::vector<PendingEntry> entries) {
  return impl_->Publish(absl::MakeSpan(entries));
}

absl::StatusOr<LookupOutcome> BlockCache::Lookup(const ClientIdentity& owner,
                                                 const Digest& spec_fingerprint,
                                                 absl::Span<const Digest> keys,
                                                 const Digest* tail_key, absl::Duration lease,
                                                 std::optional<PoolId> move_to) {
  return impl_->Lookup(owner, spec_fingerprint, keys, tail_key, lease, move_to);
}

absl::StatusOr<std::shared_ptr<const LeaseInfo>> BlockCache::FindLease(const ClientIdentity& owner,
                                                                       uint64_t lease_id) {
  return impl_->leases().Find(owner, lease_id);
}

absl::StatusOr<absl::Duration> BlockCache::Renew(const ClientIdentity& owner, uint64_t lease_id,
                                                 absl::Duration lease) {
  return impl_->Renew(owner, lease_id, lease);
}

absl::Status BlockCache::Release(const ClientIdentity& owner, uint64_t lease_id) {
  return impl_->leases().Remove(owner, lease_id);
}

int64_t BlockCache::Remove(const ClientIdentity& owner, absl::Span<const Digest> keys) {
  return impl_->Remove(owner, keys);
}

void BlockCache::Discard(const EntryRef& entry) { impl_->Discard(entry); }

absl::StatusOr<SlabShare> BlockCache::ShareSlab(const ClientIdentity& owner, uint64_t lease_id,
                                                PoolId pool, uint32_t slab) {
  TURBOKV_ASSIGN_OR_RETURN(const LeaseHandle lease, impl_->leases().Find(owner, lease_id));
  return impl_->ShareSlab(*lease, pool, slab);
}

size_t BlockCache::pool_count() const { return impl_->pool_count(); }

PoolGeometry BlockCache::pool_geometry(PoolId pool) const { return impl_->pool_geometry(pool); }

void BlockCache::LosePool(PoolId pool) { impl_->LosePool(pool); }

void BlockCache::ExpireLeases() { impl_->leases().RemoveExpired(); }

CacheUsage BlockCache::Usage() const { return impl_->Usage(); }

}  // namespace turbokv
