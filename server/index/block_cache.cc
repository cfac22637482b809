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

absl::StatusOr<std::unique_ptr<BlockCache>> BlockCache::Create(const BlockCacheOptions& options,
                                                               Metrics* metrics) {
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
  TURBOKV_ASSIGN_OR_RETURN(
      std::unique_ptr<SlabPool> pool,
      SlabPool::Create(options.budget_bytes,
                       ChooseSlabBytes(options.budget_bytes, options.slab_bytes)));
  TURBOKV_ASSIGN_OR_RETURN(KeyTagger tagger, KeyTagger::Create());
  return absl::WrapUnique(
      new BlockCache(std::make_unique<Impl>(options, tagger, std::move(pool), metrics)));
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
                                                 const Digest* tail_key, absl::Duration lease) {
  return impl_->Lookup(owner, spec_fingerprint, keys, tail_key, lease);
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

void BlockCache::ExpireLeases() { impl_->leases().RemoveExpired(); }

CacheUsage BlockCache::Usage() const { return impl_->Usage(); }

}  // namespace turbokv
