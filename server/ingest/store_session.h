// One store stream, from its announcement to publication. No gRPC here.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/format/page_header.h"
#include "server/index/block_cache.h"
#include "server/ingest/device_set.h"
#include "server/ingest/layer_order.h"
#include "server/ingest/page_encoder.h"
#include "server/ingest/staging_budget.h"
#include "server/ingest/store_plan.h"
#include "server/telemetry/metrics.h"

namespace turbokv {

// What all sessions share; outlives them.
struct StoreEnvironment {
  BlockCache* cache = nullptr;
  Metrics* metrics = nullptr;
  PageEncoder* encoder = nullptr;
  StagingBudget* staging = nullptr;
  DeviceSet* devices = nullptr;  // null: host memory only
};

// A chunk as it came. Positions are untrusted. `pieces`, one after the other, are its bytes.
struct StoreChunk {
  uint32_t layer = 0;
  uint64_t token_offset = 0;  // raw
  uint32_t token_count = 0;   // raw
  uint64_t block_index = 0;   // pages
  uint64_t page_offset = 0;   // pages
  absl::Span<const absl::Span<const uint8_t>> pieces;
  size_t bytes = 0;
};

// A checked run, and where its pages go.
struct DeviceRun {
  StoreEncoding encoding = StoreEncoding::kRaw;
  PageLayout layout;
  ValueType type = ValueType::kBf16;   // of raw K/V
  PageIdentity identity;               // of the first page
  int64_t first_block = 0;             // counted from the store's first token
  size_t run_bytes = 0;                // as it comes: raw K and V, or pages
  std::vector<uint8_t*> device_pages;  // null: not wanted
};

struct StoreSummary {
  int64_t stored_blocks = 0;
  int64_t present_blocks = 0;
  bool stored_tail = false;
  int64_t raw_bytes = 0;
  int64_t kept_bytes = 0;
  absl::Duration encode_time;
};

// The entries that a store fills. Empty ones are present already.
struct StoreTarget {
  StorePlan plan;
  std::vector<PendingEntry> blocks;
  PendingEntry tail;             // in host memory; empty also without a tail key
  PoolDevice* device = nullptr;  // whose memory the blocks are in; null: host memory
};

// Takes chunks in order and fills the target's pages with them.
class ChunkSink {
 public:
  virtual ~ChunkSink() = default;
  virtual absl::Status Add(const StoreChunk& chunk) = 0;
  // Pages in order that come otherwise: moves past them.
  virtual absl::Status Skip(const BlockRun& run) = 0;
  // Waits until the pages are whole. INVALID_ARGUMENT: something has not come.
  virtual absl::Status Finish() = 0;
};

// Used by one thread at a time. Destruction before Finish gives everything back.
class StoreSession {
 public:
  // Reserves memory for everything that is announced. RESOURCE_EXHAUSTED: the pool is full of
  // leased blocks, or other streams take all staging memory. With `pool`, blocks are kept there or
  // not at all; UNIMPLEMENTED says why its device takes no pages of this spec.
  static absl::StatusOr<std::unique_ptr<StoreSession>> Open(const StoreEnvironment& environment,
                                                            const ClientIdentity& owner,
                                                            StorePlan plan,
                                                            std::optional<PoolId> pool = {});

  // INVALID_ARGUMENT names what was expected and what came; DATA_LOSS: a page's checksum.
  absl::Status Add(const StoreChunk& chunk);

  // Takes a run of at most `max_run_bytes` for granted, in its place among the chunks: the caller
  // fills its pages before Finish, and stops before this is destroyed. INVALID_ARGUMENT as Add.
  // Precondition: Open had a device's pool.
  absl::StatusOr<DeviceRun> AddRun(const BlockRun& run, size_t max_run_bytes);

  // Publishes. INVALID_ARGUMENT: layers are missing; then nothing becomes visible.
  absl::StatusOr<StoreSummary> Finish();

 private:
  explicit StoreSession(const StoreEnvironment& environment) : environment_(environment) {}

  absl::Status ReserveEntries(const ClientIdentity& owner, std::optional<PoolId> wanted_pool);
  void CountReceived(size_t bytes);
  void CountPages(int64_t blocks) const;

  const StoreEnvironment environment_;
  StoreTarget target_;
  StagingBudget::Grant staging_;
  std::unique_ptr<ChunkSink> sink_;
  int64_t received_bytes_ = 0;
  absl::Duration encode_time_;
};

}  // namespace turbokv
