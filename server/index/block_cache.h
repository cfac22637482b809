// The blocks that are held: pages in the pool, found by key, kept by leases, evicted by age.
//
// Invariants
//   1. An entry is found by Lookup only after Publish, and Publish happens once: its pages never
//      change afterwards.
//   2. An extent is freed when its entry is unlinked (evicted, removed, damaged) and nobody pins
//   it.
//      A pinned entry is never evicted.
//   3. Pool bytes never exceed the budget; a reservation that does not fit is refused whole.
//   4. Entries are evicted whole, least recently used first; a lookup uses children before parents,
//      so that a prefix outlives its continuations.
//   5. An entry lies whole in one pool. It moves to another only while no lease holds it; what a
//      device pool has no room for moves to host memory, and leaves the cache only from there, or
//      when it cannot be moved.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/cache_spec.h"
#include "server/pool/arena.h"

namespace turbokv {

class Metrics;

// Who asks: leases belong to a tenant's client, blocks to a tenant.
struct ClientIdentity {
  std::string tenant = "default";
  std::string client = "default";
  bool operator==(const ClientIdentity&) const = default;
};

// Host memory is pool 0; every device has one of its own.
using PoolId = uint8_t;
inline constexpr PoolId kHostPool = 0;
inline constexpr size_t kMaxPools = 17;

// Where an extent begins: bytes from the base of its pool's arena. The generation is its slab's.
struct Place {
  PoolId pool = kHostPool;
  uint64_t offset_bytes = 0;
  uint32_t generation = 0;
};

// A handle to map a slab by, and which memory it stands for.
struct SlabShare {
  SharedSlab slab;
  uint32_t generation = 0;
};

struct ExtentCopy {
  PoolId from_pool = kHostPool;
  const uint8_t* from = nullptr;
  PoolId to_pool = kHostPool;
  uint8_t* to = nullptr;
  size_t bytes = 0;
};

// Copies between pools. Threads: any.
class ExtentCopier {
 public:
  virtual ~ExtentCopier() = default;
  // Returns when all copies are done, or (any error) when none of them goes on.
  virtual absl::Status Copy(absl::Span<const ExtentCopy> copies) = 0;
};

// What an entry of the index holds.
enum class EntryKind : uint8_t { kBlock, kTail };

// Where the pages of an entry lie in its extent: layer-major, tail entries two pages a layer.
struct EntryGeometry {
  Digest spec_fingerprint{};
  EntryKind kind = EntryKind::kBlock;
  int pages_per_layer = 1;
  std::vector<size_t> page_offsets_bytes;  // [layers * pages_per_layer + 1]; the last is the size

  int layers() const { return (static_cast<int>(page_offsets_bytes.size()) - 1) / pages_per_layer; }
  size_t extent_bytes() const { return page_offsets_bytes.back(); }

  static std::shared_ptr<const EntryGeometry> ForBlock(const ResolvedSpec& spec);
  static std::shared_ptr<const EntryGeometry> ForTail(const ResolvedSpec& spec);
};

class BlockCache;

// A pin on a published entry: its pages stay readable while this lives. Copyable, any thread.
class EntryRef {
 public:
  EntryRef() = default;
  EntryRef(const EntryRef& other);
  EntryRef(EntryRef&& other) noexcept;
  EntryRef& operator=(EntryRef other) noexcept;
  ~EntryRef();

  explicit operator bool() const { return cache_ != nullptr; }
  const EntryGeometry& geometry() const;
  // Precondition: layer < geometry().layers(), index < geometry().pages_per_layer. Of a device
  // pool, device memory.
  absl::Span<const uint8_t> page(int layer, int index = 0) const;
  int tokens() const;  // tail entries: 1..255; blocks: 128
  PoolId pool() const;
  Place place() const;

 private:
  friend class BlockCache;
  BlockCache* cache_ = nullptr;
  uint32_t entry_ = 0;
};

// An extent being filled, invisible until published. Destruction gives it back.
class PendingEntry {
 public:
  PendingEntry() = default;
  PendingEntry(PendingEntry&& other) noexcept;
  PendingEntry& operator=(PendingEntry&& other) noexcept;
  ~PendingEntry();

  // False: an entry with this key was there already; nothing is to be written.
  explicit operator bool() const { return cache_ != nullptr; }
  absl::Span<uint8_t> page(int layer, int index = 0) const;
  PoolId pool() const;

 private:
  friend class BlockCache;
  BlockCache* cache_ = nullptr;
  uint32_t entry_ = 0;
};

struct ReserveRequest {
  Digest key{};
  std::shared_ptr<const EntryGeometry> geometry;
  int tokens = kPageTokens;
  PoolId pool = kHostPool;
};

struct LeaseInfo {
  uint64_t id = 0;
  absl::Duration duration;
  std::vector<EntryRef> blocks;
  EntryRef tail;  // may be empty
};

struct LookupOutcome {
  int64_t matched_blocks = 0;
  bool tail_found = false;
  int tail_tokens = 0;
  int layers = 0;
  uint64_t lease_id = 0;  // 0: nothing matched
  absl::Duration lease;
};

struct PoolUsage {
  size_t budget_bytes = 0, used_bytes = 0, reserved_bytes = 0;
  int64_t blocks = 0;
  bool lost = false;
};

// Sums over all pools, and each of them.
struct CacheUsage {
  size_t budget_bytes = 0, used_bytes = 0, reserved_bytes = 0;
  int64_t blocks = 0, tails = 0, leases = 0, leased_blocks = 0, pending_entries = 0;
  int64_t evicted_blocks = 0;
  size_t index_bytes = 0;
  std::vector<PoolUsage> pools;
};

struct PoolGeometry {
  size_t slab_bytes = 0;
  uint32_t slab_count = 0;
};

inline constexpr absl::Duration kMaxLeaseLimit = absl::Hours(24);

struct BlockCacheOptions {
  size_t budget_bytes = size_t{4} << 30;  // of host memory
  size_t slab_bytes = 0;                  // 0: chosen from the budget; no extent can be larger
  absl::Duration default_lease = absl::Seconds(30);
  absl::Duration max_lease = absl::Minutes(10);
  size_t max_leases = 65536;
  // Entries held by all leases together; each costs 16 bytes beside the budget.
  size_t max_leased_entries = size_t{4} << 20;
  // Host memory can be mapped by other processes, and no slab of any pool holds blocks of two
  // tenants.
  bool shareable = false;
};

// The pools beside host memory: pool i + 1 is arenas[i].
struct DevicePools {
  std::vector<std::unique_ptr<Arena>> arenas;
  ExtentCopier* copier = nullptr;  // outlives the cache
};

// Threads: every method may be called from any thread. Destroy after every ref and pending entry.
class BlockCache {
 public:
  // RESOURCE_EXHAUSTED when the budget cannot be mapped; INVALID_ARGUMENT for nonsense options.
  // `metrics` (may be null in tests) outlives the cache; hits, misses and evictions are counted
  // there by the cache itself.
  static absl::StatusOr<std::unique_ptr<BlockCache>> Create(const BlockCacheOptions& options,
                                                            Metrics* metrics,
                                                            DevicePools devices = {});
  ~BlockCache();

  // Extents for all of `requests`, evicting unpinned entries as needed, or none. A request whose
  // key is present comes back empty. RESOURCE_EXHAUSTED: what is pinned leaves too little room (the
  // message has the numbers). INVALID_ARGUMENT: an extent larger than a slab.
  absl::StatusOr<std::vector<PendingEntry>> Reserve(const ClientIdentity& owner,
                                                    absl::Span<const ReserveRequest> requests);

  // Makes entries visible, together. Returns how many; an entry whose key was published by somebody
  // else meanwhile is dropped.
  int64_t Publish(std::vector<PendingEntry> entries);

  // The longest prefix of `keys` whose entries are blocks of `spec_fingerprint`, leased; and the
  // tail, looked for only when every block matched. RESOURCE_EXHAUSTED: too many leases are held.
  // Blocks that only this lease holds are moved to `move_to` first, as far as there is room; that
  // takes as long as the copies.
  absl::StatusOr<LookupOutcome> Lookup(const ClientIdentity& owner, const Digest& spec_fingerprint,
                                       absl::Span<const Digest> keys, const Digest* tail_key,
                                       absl::Duration lease,
                                       std::optional<PoolId> move_to = std::nullopt);

  // NOT_FOUND: unknown, expired, or another client's lease: the three are not told apart.
  absl::StatusOr<std::shared_ptr<const LeaseInfo>> FindLease(const ClientIdentity& owner,
                                                             uint64_t lease_id);
  absl::StatusOr<absl::Duration> Renew(const ClientIdentity& owner, uint64_t lease_id,
                                       absl::Duration lease);
  absl::Status Release(const ClientIdentity& owner, uint64_t lease_id);

  // Unlinks entries by key. Returns how many were there.
  int64_t Remove(const ClientIdentity& owner, absl::Span<const Digest> keys);

  // Unlinks a damaged entry.
  void Discard(const EntryRef& entry);

  // A handle to map a slab by that the lease has pages in. NOT_FOUND: the lease, or none of its
  // pages is there. UNIMPLEMENTED: the pool's memory cannot be shared.
  absl::StatusOr<SlabShare> ShareSlab(const ClientIdentity& owner, uint64_t lease_id, PoolId pool,
                                      uint32_t slab);
  size_t pool_count() const;
  // Precondition: pool < pool_count().
  PoolGeometry pool_geometry(PoolId pool) const;

  // The pool's memory is gone: its entries are unlinked, and it takes none from now on.
  void LosePool(PoolId pool);

  // Drops expired leases. Called by the server about once a second, and by Reserve under pressure.
  void ExpireLeases();

  CacheUsage Usage() const;

 private:
  friend class EntryRef;
  friend class PendingEntry;
  class Impl;
  explicit BlockCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace turbokv
