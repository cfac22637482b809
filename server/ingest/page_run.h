// Reads leased pages for a fetch: layer by layer, in chunks, each page verified before its first
// byte leaves. No gRPC here.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/index/block_cache.h"
#include "server/ingest/device_set.h"
#include "server/telemetry/metrics.h"

namespace turbokv {

// What a fetch asks for; zeros as in FetchRequest. Untrusted.
struct FetchRange {
  uint32_t first_layer = 0;
  uint32_t layer_count = 0;
  uint64_t first_block = 0;
  uint64_t block_count = 0;
  bool include_tail = false;
  uint32_t chunk_bytes = 0;
};

// Bytes of one layer's run: pages' memory, valid while the lease's refs and `copies` live.
struct RunChunk {
  int layer = 0;
  uint64_t offset = 0;
  uint64_t layer_bytes = 0;
  std::vector<absl::Span<const uint8_t>> pieces;
  std::vector<std::shared_ptr<const void>> copies;  // of pages that lie in device memory
  size_t bytes = 0;

  bool ends_layer() const { return offset + bytes == layer_bytes; }
};

// Used by one thread at a time.
class PageRun {
 public:
  // INVALID_ARGUMENT names the field, its value and the limit. `cache`, `devices` (null: there are
  // none) and `metrics` outlive this.
  static absl::StatusOr<PageRun> Create(const FetchRange& range,
                                        std::shared_ptr<const LeaseInfo> lease, BlockCache* cache,
                                        DeviceSet* devices, Metrics* metrics);

  bool done() const { return layer_ == end_layer_; }
  int layer() const { return layer_; }
  int end_layer() const { return end_layer_; }
  int64_t first_block() const { return first_block_; }
  int64_t block_count() const { return block_count_; }

  // The next chunk; waits for copies from a device, whose error it returns. DATA_LOSS names the
  // layer and the block of a page whose checksum fails; the block is gone then. Precondition:
  // !done().
  absl::StatusOr<RunChunk> Next();

 private:
  // Consecutive pages of the layer as the host can read them.
  struct Window {
    int64_t first_page = 0;
    std::vector<absl::Span<const uint8_t>> pages;
    std::shared_ptr<const uint8_t[]> copies;  // of those in device memory
  };

  PageRun() = default;

  int64_t page_count() const { return block_count_ + tail_pages_; }
  absl::Span<const uint8_t> PageAt(int64_t index) const;
  const EntryRef& EntryAt(int64_t index) const;
  uint64_t LayerBytes() const;
  // Makes page_ readable, and those that may follow it in a chunk.
  absl::Status LoadWindow();
  absl::Span<const uint8_t> Readable(int64_t index) const {
    return window_.pages[index - window_.first_page];
  }
  absl::Status Verify(int64_t index) const;

  std::shared_ptr<const LeaseInfo> lease_;
  BlockCache* cache_ = nullptr;
  DeviceSet* devices_ = nullptr;
  Metrics* metrics_ = nullptr;
  int layer_ = 0;
  int end_layer_ = 0;
  int64_t first_block_ = 0;
  int64_t block_count_ = 0;
  int tail_pages_ = 0;
  size_t chunk_bytes_ = 0;
  // Inside the layer:
  int64_t page_ = 0;
  size_t page_offset_ = 0;
  uint64_t offset_ = 0;
  Window window_;
};

}  // namespace turbokv
