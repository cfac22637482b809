#include "server/index/block_cache_impl.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/telemetry/metrics.h"

namespace turbokv {
namespace {

// Entries that one turn with the mutex handles: some tens of microseconds.
constexpr size_t kBatchEntries = 256;
constexpr size_t kPrefetchDistance = 16;
constexpr int kMaxTailTokens = 2 * kPageTokens - 1;

std::vector<PoolGeometry> GeometriesOf(const std::vector<std::unique_ptr<SlabPool>>& pools) {
  std::vector<PoolGeometry> geometries;
  for (const auto& pool : pools) geometries.push_back({pool->slab_bytes(), pool->slab_count()});
  return geometries;
}

}  // namespace

BlockCache::Impl::Impl(const BlockCacheOptions& options, KeyTagger tagger,
                       std::vector<std::unique_ptr<SlabPool>> pools, ExtentCopier* copier,
                       Metrics* metrics)
    : options_(options),
      tagger_(tagger),
      metrics_(metrics),
      copier_(copier),
      geometries_(GeometriesOf(pools)),
      leases_(options.max_leases, options.max_leased_entries),
      index_(std::move(pools)) {}

EntryRef BlockCache::Impl::MakeRef(EntryId pinned) const {
  EntryRef ref;
  ref.cache_ = cache_;
  ref.entry_ = pinned;
  return ref;
}

absl::Duration BlockCache::Impl::ClampLease(absl::Duration lease) const {
  if (lease <= absl::ZeroDuration()) lease = options_.default_lease;
  return std::min(lease, options_.max_lease);
}

absl::Span<uint8_t> BlockCache::Impl::Page(EntryId id, int layer, int page_of_layer) const {
  const Entry& entry = HeldEntry(id);
  const EntryGeometry& geometry = *entry.record->geometry;
  const size_t page = static_cast<size_t>(layer) * geometry.pages_per_layer + page_of_layer;
  const size_t begin = geometry.page_offsets_bytes[page];
  return {index_.Address(entry) + begin, geometry.page_offsets_bytes[page + 1] - begin};
}

Place BlockCache::Impl::PlaceOf(EntryId id) const {
  const Entry& entry = HeldEntry(id);
  const SlabPool& slabs = index_.pool(entry.pool).slabs();
  return {entry.pool, slabs.OffsetBytes(entry.extent), slabs.generation(entry.extent.slab)};
}

absl::Status BlockCache::Impl::CheckRequests(absl::Span<const ReserveRequest> requests) const {
  for (const ReserveRequest& request : requests) {
    const EntryGeometry& geometry = *request.geometry;
    const size_t slab_bytes = geometries_[request.pool].slab_bytes;
    if (geometry.extent_bytes() == 0 || ExtentClassBytes(geometry.extent_bytes()) > slab_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(geometry.kind == EntryKind::kTail ? "tail" : "block", " of ",
                       geometry.extent_bytes(), " bytes in all layers: must be 1..", slab_bytes,
                       " bytes, the server's slab size (setting slab_size)"));
    }
    const int max_tokens = geometry.kind == EntryKind::kTail ? kMaxTailTokens : kPageTokens;
    if (request.tokens < 1 || request.tokens > max_tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("entry of ", request.tokens, " tokens: must be 1..", max_tokens));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PendingEntry>> BlockCache::Impl::Reserve(
    const ClientIdentity& owner, absl::Span<const ReserveRequest> requests) {
  TURBOKV_RETURN_IF_ERROR(CheckRequests(requests));
  std::vector<Digest> keys;
  keys.reserve(requests.size());
  for (const ReserveRequest& request : requests) keys.push_back(request.key);
  Reservation reservation;
  reservation.requests = requests;
  TURBOKV_ASSIGN_OR_RETURN(reservation.tags, tagger_.Tags(owner.tenant, keys));
  reservation.group = GroupOf(owner);
  reservation.reserved.resize(requests.size());
  // What is there already stays pinned meanwhile: it must not make room for its continuation.
  reservation.present = PinPublished(reservation.tags);
  const absl::Status status = ReserveAbsent(&reservation);
  UnpinAll(absl::MakeSpan(reservation.present));
  TURBOKV_RETURN_IF_ERROR(status);
  return std::move(reservation.reserved);
}

std::vector<EntryRef> BlockCache::Impl::PinPublished(absl::Span<const BlockTag> tags) {
  std::vector<EntryRef> refs(tags.size());
  std::vector<EntryId> found(std::min(tags.size(), kBatchEntries));
  for (size_t begin = 0; begin < tags.size(); begin += kBatchEntries) {
    const auto batch = tags.subspan(begin, kBatchEntries);
    const MutexLock lock(&mutex_);
    index_.FindAll(batch, absl::MakeSpan(found).first(batch.size()));
    for (size_t i = 0; i < batch.size(); ++i) {
      if (found[i] == kNoEntry) continue;
      index_.Pin(found[i]);
      refs[begin + i] = MakeRef(found[i]);
    }
  }
  return refs;
}

absl::Status BlockCache::Impl::ReserveAbsent(Reservation* reservation) {
  const absl::Span<const ReserveRequest> requests = reservation->requests;
  PoolNeeds needs;
  for (size_t i = 0; i < requests.size(); ++i) {
    if (reservation->present[i]) continue;
    Needs& of_pool = needs[requests[i].pool];
    of_pool.bytes += ExtentClassBytes(requests[i].geometry->extent_bytes());
    ++of_pool.entries;
  }
  // What cannot fit is refused before anything is evicted for it.
  TURBOKV_RETURN_IF_ERROR(CheckRoom(needs));
  bool evict_from_devices = false;
  bool expired_leases_removed = false;
  for (size_t next = 0; next < requests.size();) {
    TURBOKV_ASSIGN_OR_RETURN(const size_t stopped,
                             ReserveSome(reservation, next, evict_from_devices));
    if (stopped == next) {
      const ReserveRequest& request = requests[next];
      if (request.pool != kHostPool && !evict_from_devices) {
        evict_from_devices = !Demote(request.pool, request.geometry, reservation->group,
                                     std::min(requests.size() - next, kBatchEntries));
      } else if (std::exchange(expired_leases_removed, true)) {
        return NoRoom(needs[request.pool], request.pool);
      } else {
        leases_.RemoveExpired();
      }
    }
    next = stopped;
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> BlockCache::Impl::ReserveSome(Reservation* reservation, size_t begin,
                                                     bool evict_from_devices) {
  const absl::Span<const ReserveRequest> requests = reservation->requests;
  const size_t end = std::min(begin + kBatchEntries, requests.size());
  size_t i = begin;
  EvictionTally evicted;
  {
    const MutexLock lock(&mutex_);
    for (; i < end; ++i) {
      if (reservation->present[i]) continue;
      const PoolId pool = requests[i].pool;
      TURBOKV_ASSIGN_OR_RETURN(GeometryRecord* const record,
                               index_.HoldGeometry(requests[i].geometry, reservation->group));
      const bool may_reserve = pool == kHostPool || evict_from_devices ||
                               index_.pool(pool).slabs().HasRoom(record->ages[pool]->size_class);
      const EntryId id =
          may_reserve ? index_.Reserve(reservation->tags[i], record, requests[i].tokens, pool)
                      : kNoEntry;
      index_.DropGeometry(record);
      if (id == kNoEntry) break;
      reservation->reserved[i].cache_ = cache_;
      reservation->reserved[i].entry_ = id;
    }
    evicted = index_.TakeEvictions();
  }
  CountEvictions(evicted);
  return i;
}

void BlockCache::Impl::CountEvictions(const EvictionTally& evicted) const {
  if (metrics_ != nullptr && evicted.bytes > 0) {
    metrics_->CountEviction(evicted.blocks, evicted.bytes);
  }
}

absl::Status BlockCache::Impl::CheckRoom(const PoolNeeds& needs) {
  PoolId full = kHostPool;
  if (FitsBesideHeld(needs, &full)) return absl::OkStatus();
  leases_.RemoveExpired();
  return FitsBesideHeld(needs, &full) ? absl::OkStatus() : NoRoom(needs[full], full);
}

bool BlockCache::Impl::FitsBesideHeld(const PoolNeeds& needs, PoolId* full) const {
  const MutexLock lock(&mutex_);
  for (PoolId id = 0; id < pool_count(); ++id) {
    const PoolSpace& pool = index_.pool(id);
    *full = id;
    if (needs[id].bytes > pool.slabs().capacity_bytes() - pool.held_bytes()) return false;
    if (needs[id].bytes > 0 && pool.lost()) return false;
  }
  return true;
}

absl::Status BlockCache::Impl::NoRoom(const Needs& needs, PoolId pool) const {
  const MutexLock lock(&mutex_);
  const PoolSpace& space = index_.pool(pool);
  if (space.lost()) {
    return absl::UnavailableError(absl::StrCat("the device of pool ", pool, " has failed"));
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("pool is full: ", needs.entries, " entries need ", needs.bytes,
                   " bytes; of the budget of ", space.slabs().capacity_bytes(),
                   " bytes, leases and stores under way hold ", space.held_bytes()));
}

int64_t BlockCache::Impl::Publish(absl::Span<PendingEntry> entries) {
  int64_t published = 0;
  // One turn with the mutex however many there are: they become visible together.
  const MutexLock lock(&mutex_);
  for (size_t i = entries.size(); i > 0; --i) {  // children first, so that parents are younger
    PendingEntry& entry = entries[i - 1];
    if (i > kPrefetchDistance && entries[i - 1 - kPrefetchDistance]) {
      index_.PrefetchForPublish(entries[i - 1 - kPrefetchDistance].entry_);
    }
    if (std::exchange(entry.cache_, nullptr) == nullptr) continue;
    published += index_.Publish(entry.entry_) ? 1 : 0;
  }
  return published;
}

absl::StatusOr<LookupOutcome> BlockCache::Impl::Lookup(const ClientIdentity& owner,
                                                       const Digest& spec_fingerprint,
                                                       absl::Span<const Digest> keys,
                                                       const Digest* tail_key, absl::Duration lease,
                                                       std::optional<PoolId> move_to) {
  TURBOKV_ASSIGN_OR_RETURN(const std::vector<BlockTag> tags, tagger_.Tags(owner.tenant, keys));
  if (leases_.full()) leases_.RemoveExpired();
  const std::shared_ptr<LeaseInfo> held = NewLease(ClampLease(lease));
  const SpecInGroup spec{spec_fingerprint, GroupOf(owner)};
  PinPrefix(spec, tags, held.get());
  const size_t matched = held->blocks.size();
  if (tail_key != nullptr && matched == keys.size()) {
    TURBOKV_ASSIGN_OR_RETURN(const std::vector<BlockTag> tail_tags,
                             tagger_.Tags(owner.tenant, absl::MakeConstSpan(tail_key, 1)));
    PinTail(spec, tail_tags.front(), held.get());
  }
  CountLookup(spec, static_cast<int64_t>(matched), static_cast<int64_t>(keys.size() - matched));

  if (move_to) Gather(*move_to, *held);

  LookupOutcome outcome;
  if (matched == 0 && !held->tail) return outcome;
  outcome.matched_blocks = static_cast<int64_t>(matched);
  outcome.tail_found = static_cast<bool>(held->tail);
  if (outcome.tail_found) outcome.tail_tokens = held->tail.tokens();
  outcome.layers = (matched > 0 ? held->blocks.front() : held->tail).geometry().layers();
  outcome.lease = held->duration;
  TURBOKV_ASSIGN_OR_RETURN(outcome.lease_id, leases_.Add(owner, held));
  return outcome;
}

void BlockCache::Impl::PinPrefix(const SpecInGroup& spec, absl::Span<const BlockTag> tags,
                                 LeaseInfo* lease) {
  for (size_t begin = 0; begin < tags.size(); begin += kBatchEntries) {
    const auto batch = tags.subspan(begin, kBatchEntries);
    // Most prompts are found whole or hardly at all.
    lease->blocks.reserve(begin == 0 ? batch.size() : tags.size());
    if (PinPrefixOfBatch(spec, batch, lease) < batch.size()) return;
  }
}

size_t BlockCache::Impl::PinPrefixOfBatch(const SpecInGroup& spec, absl::Span<const BlockTag> tags,
                                          LeaseInfo* lease) {
  std::array<EntryId, kBatchEntries> found;
  const MutexLock lock(&mutex_);
  const GeometryRecord* record =
      index_.FindGeometry(spec.fingerprint, EntryKind::kBlock, spec.group);
  if (record == nullptr) return 0;
  index_.FindAll(tags, absl::MakeSpan(found).first(tags.size()));
  size_t matched = 0;
  while (matched < tags.size() && found[matched] != kNoEntry &&
         index_.entry(found[matched]).record == record) {
    index_.PrefetchForPin(found[matched++]);
  }
  for (size_t i = 0; i < matched; ++i) {
    index_.Pin(found[i]);
    lease->blocks.push_back(MakeRef(found[i]));
  }
  return matched;
}

void BlockCache::Impl::PinTail(const SpecInGroup& spec, const BlockTag& tag, LeaseInfo* lease) {
  EntryId found = kNoEntry;
  const MutexLock lock(&mutex_);
  const GeometryRecord* record =
      index_.FindGeometry(spec.fingerprint, EntryKind::kTail, spec.group);
  if (record == nullptr) return;
  index_.FindAll(absl::MakeConstSpan(&tag, 1), absl::MakeSpan(&found, 1));
  if (found == kNoEntry || index_.entry(found).record != record) return;
  index_.Pin(found);
  lease->tail = MakeRef(found);
}

std::shared_ptr<LeaseInfo> BlockCache::Impl::NewLease(absl::Duration duration) {
  auto lease = std::make_unique<LeaseInfo>();
  lease->duration = duration;
  return std::shared_ptr<LeaseInfo>(lease.release(), [this](LeaseInfo* ended) {
    EndLease(ended);
    delete ended;
  });
}

void BlockCache::Impl::EndLease(LeaseInfo* lease) {
  lease->tail = EntryRef();
  UnpinAll(absl::MakeSpan(lease->blocks));
}

void BlockCache::Impl::UnpinAll(absl::Span<EntryRef> refs) {
  for (size_t end = refs.size(); end > 0;) {
    const size_t begin = end - std::min(end, kBatchEntries);
    const auto batch = refs.subspan(begin, end - begin);
    for (const EntryRef& ref : batch) {
      if (ref) __builtin_prefetch(&HeldEntry(ref.entry_), 1);
    }
    const MutexLock lock(&mutex_);
    for (size_t i = batch.size(); i > 0; --i) {
      if (std::exchange(batch[i - 1].cache_, nullptr) != nullptr) {
        index_.Unpin(batch[i - 1].entry_);
      }
    }
    end = begin;
  }
}

void BlockCache::Impl::CountLookup(const SpecInGroup& spec, int64_t hit_blocks,
                                   int64_t missed_blocks) const {
  if (metrics_ == nullptr) return;
  int64_t block_bytes = 0;
  {
    const MutexLock lock(&mutex_);
    const GeometryRecord* record =
        index_.FindGeometry(spec.fingerprint, EntryKind::kBlock, spec.group);
    if (record != nullptr) block_bytes = static_cast<int64_t>(record->geometry->extent_bytes());
  }
  metrics_->CountLookup(hit_blocks * kPageTokens, missed_blocks * kPageTokens,
                        hit_blocks * block_bytes, missed_blocks * block_bytes);
}

absl::StatusOr<absl::Duration> BlockCache::Impl::Renew(const ClientIdentity& owner,
                                                       uint64_t lease_id, absl::Duration lease) {
  const absl::Duration granted = ClampLease(lease);
  TURBOKV_RETURN_IF_ERROR(leases_.Renew(owner, lease_id, granted));
  return granted;
}

int64_t BlockCache::Impl::Remove(const ClientIdentity& owner, absl::Span<const Digest> keys) {
  const absl::StatusOr<std::vector<BlockTag>> tags = tagger_.Tags(owner.tenant, keys);
  if (!tags.ok()) return 0;
  int64_t removed = 0;
  for (size_t begin = 0; begin < tags->size(); begin += kBatchEntries) {
    const auto batch = absl::MakeConstSpan(*tags).subspan(begin, kBatchEntries);
    const MutexLock lock(&mutex_);
    for (const BlockTag& tag : batch) removed += index_.Remove(tag) ? 1 : 0;
  }
  return removed;
}

void BlockCache::Impl::Discard(const EntryRef& ref) {
  if (!ref) return;
  const MutexLock lock(&mutex_);
  if (index_.entry(ref.entry_).state == EntryState::kPublished) index_.Unlink(ref.entry_);
}

CacheUsage BlockCache::Impl::Usage() const {
  CacheUsage usage;
  usage.leases = leases_.size();
  const MutexLock lock(&mutex_);
  index_.FillUsage(&usage);
  return usage;
}

void BlockCache::Impl::Unpin(EntryId id) {
  std::atomic<uint32_t>& pins = const_cast<Entry&>(HeldEntry(id)).pins;
  uint32_t count = pins.load(std::memory_order_relaxed);
  while (count > 1) {
    if (pins.compare_exchange_weak(count, count - 1, std::memory_order_acq_rel)) return;
  }
  const MutexLock lock(&mutex_);
  index_.Unpin(id);
}

void BlockCache::Impl::GiveBack(EntryId id) {
  const MutexLock lock(&mutex_);
  index_.GiveBack(id);
}

}  // namespace turbokv
