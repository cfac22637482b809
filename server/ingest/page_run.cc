#include "server/ingest/page_run.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/chunk_sizes.h"
#include "kernels/format/page_header.h"

namespace turbokv {
namespace {

absl::Status CheckRange(absl::string_view field, uint64_t value, uint64_t low, uint64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, "; expected ", low, "..", high));
}

uint64_t SpecIdOf(const EntryGeometry& geometry) {
  uint64_t id = 0;
  std::memcpy(&id, geometry.spec_fingerprint.data(), sizeof(id));
  return id;
}

}  // namespace

absl::StatusOr<PageRun> PageRun::Create(const FetchRange& range,
                                        std::shared_ptr<const LeaseInfo> lease, BlockCache* cache,
                                        DeviceSet* devices, Metrics* metrics) {
  const EntryRef& any = lease->blocks.empty() ? lease->tail : lease->blocks.front();
  if (!any) return absl::InvalidArgumentError("the lease holds nothing");
  const uint64_t layers = any.geometry().layers();
  const uint64_t blocks = lease->blocks.size();
  TURBOKV_RETURN_IF_ERROR(CheckRange("first_layer", range.first_layer, 0, layers - 1));
  TURBOKV_RETURN_IF_ERROR(
      CheckRange("layer_count", range.layer_count, 0, layers - range.first_layer));
  TURBOKV_RETURN_IF_ERROR(CheckRange("first_block", range.first_block, 0, blocks));
  TURBOKV_RETURN_IF_ERROR(
      CheckRange("block_count", range.block_count, 0, blocks - range.first_block));
  if (range.include_tail && !lease->tail) {
    return absl::InvalidArgumentError("include_tail is set; the lease holds no tail");
  }
  PageRun run;
  run.chunk_bytes_ = range.chunk_bytes == 0 ? kDefaultChunkBytes : range.chunk_bytes;
  TURBOKV_RETURN_IF_ERROR(
      CheckRange("chunk_bytes", run.chunk_bytes_, kMinChunkBytes, kMaxChunkBytes));
  run.layer_ = static_cast<int>(range.first_layer);
  run.end_layer_ =
      static_cast<int>(range.layer_count == 0 ? layers : range.first_layer + range.layer_count);
  run.first_block_ = static_cast<int64_t>(range.first_block);
  run.block_count_ =
      static_cast<int64_t>(range.block_count == 0 ? blocks - range.first_block : range.block_count);
  if (range.include_tail) run.tail_pages_ = (lease->tail.tokens() + kPageTokens - 1) / kPageTokens;
  if (run.page_count() == 0) run.layer_ = run.end_layer_;  // nothing to send
  run.lease_ = std::move(lease);
  run.cache_ = cache;
  run.devices_ = devices;
  run.metrics_ = metrics;
  return run;
}

const EntryRef& PageRun::EntryAt(int64_t index) const {
  return index < block_count_ ? lease_->blocks[first_block_ + index] : lease_->tail;
}

absl::Span<const uint8_t> PageRun::PageAt(int64_t index) const {
  const int page_of_layer = index < block_count_ ? 0 : static_cast<int>(index - block_count_);
  return EntryAt(index).page(layer_, page_of_layer);
}

uint64_t PageRun::LayerBytes() const {
  uint64_t bytes = 0;
  // All pages of blocks have one size in a layer, and so have those of the tail.
  if (block_count_ > 0) bytes += block_count_ * PageAt(0).size();
  if (tail_pages_ > 0) bytes += tail_pages_ * PageAt(block_count_).size();
  return bytes;
}

absl::Status PageRun::LoadWindow() {
  Window window;
  window.first_page = page_;
  size_t run_bytes = 0;
  size_t copied_bytes = 0;
  for (int64_t i = page_; i < page_count() && run_bytes < chunk_bytes_; ++i) {
    window.pages.push_back(PageAt(i));
    run_bytes += window.pages.back().size();
    if (EntryAt(i).pool() != kHostPool) copied_bytes += window.pages.back().size();
  }
  if (copied_bytes > 0) {
    auto copies = std::make_shared_for_overwrite<uint8_t[]>(copied_bytes);
    std::vector<std::vector<DeviceRead>> reads(devices_->size() + 1);
    uint8_t* next = copies.get();
    for (absl::Span<const uint8_t>& page : window.pages) {
      const PoolId pool = EntryAt(page_ + (&page - window.pages.data())).pool();
      if (pool == kHostPool) continue;
      reads[pool].push_back({next, page.data(), page.size()});
      page = {next, page.size()};
      next += page.size();
    }
    for (size_t pool = 1; pool < reads.size(); ++pool) {
      if (reads[pool].empty()) continue;
      TURBOKV_RETURN_IF_ERROR(devices_->device(static_cast<PoolId>(pool))->io->Read(reads[pool]));
    }
    window.copies = std::move(copies);
  }
  window_ = std::move(window);
  return absl::OkStatus();
}

absl::Status PageRun::Verify(int64_t index) const {
  const absl::Span<const uint8_t> bytes = Readable(index);
  const EntryRef& entry = EntryAt(index);
  const absl::StatusOr<PageView> page = ParsePage(bytes);
  absl::Status status = page.ok() ? VerifyChecksum(*page) : page.status();
  if (status.ok() && (page->layout.page_bytes != bytes.size() ||
                      page->header.layer != static_cast<uint32_t>(layer_) ||
                      page->header.spec_id != SpecIdOf(entry.geometry()))) {
    status = absl::DataLossError("the page's header is another page's");
  }
  if (status.ok()) return absl::OkStatus();
  metrics_->CountDataLoss();
  cache_->Discard(entry);
  const std::string what = index < block_count_ ? absl::StrCat("block ", first_block_ + index)
                                                : absl::StrCat("tail page ", index - block_count_);
  return absl::DataLossError(absl::StrCat("layer ", layer_, ", ", what,
                                          " is damaged and was dropped: ", status.message()));
}

absl::StatusOr<RunChunk> PageRun::Next() {
  RunChunk chunk;
  chunk.layer = layer_;
  chunk.offset = offset_;
  chunk.layer_bytes = LayerBytes();
  while (chunk.bytes < chunk_bytes_ && page_ < page_count()) {
    if (page_offset_ == 0) {
      const auto loaded_end = window_.first_page + static_cast<int64_t>(window_.pages.size());
      if (page_ >= loaded_end) TURBOKV_RETURN_IF_ERROR(LoadWindow());
      TURBOKV_RETURN_IF_ERROR(Verify(page_));
    }
    if (window_.copies != nullptr &&
        (chunk.copies.empty() || chunk.copies.back() != window_.copies)) {
      chunk.copies.push_back(window_.copies);
    }
    const absl::Span<const uint8_t> page = Readable(page_);
    const absl::Span<const uint8_t> piece = page.subspan(page_offset_, chunk_bytes_ - chunk.bytes);
    chunk.pieces.push_back(piece);
    chunk.bytes += piece.size();
    page_offset_ += piece.size();
    if (page_offset_ == page.size()) {
      ++page_;
      page_offset_ = 0;
    }
  }
  offset_ += chunk.bytes;
  if (page_ == page_count()) {
    ++layer_;
    page_ = 0;
    offset_ = 0;
    window_ = Window();
  }
  return chunk;
}

}  // namespace turbokv
