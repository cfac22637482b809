// Finds a prompt's pages in the memory of a GPU that turbokvd and this worker both use, and attends
// on them where they lie: the road "cuda". No page is copied.
//
//   auto memory = DeviceMemory::Open(*channel, uuid, MakeCudaSlabImporter);    // once
//   DeviceReader reader(channel, spec, memory, MakeCudaReadDevice().value());
//   auto match = reader.Lookup(token_ids, {});
//   for each layer: auto pages = reader.Layer(layer);     // checked; a PagePool and a block table
//                   launch attention on them
//   wait for the stream; reader.CheckUnchanged(layer) of each; only then use the results
//
// Pages are the service's memory, valid while the lease is held: Renew it in time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/cache_spec.h"
#include "client/channel.h"
#include "client/decode_reader.h"
#include "client/device_memory.h"
#include "client/device_pages.h"

namespace turbokv {

// Pages of one layer, as kernels/cuda/page_pool.h and AttentionArguments::block_tables take them:
// page i begins at device_base + page_ids[i] * stride_bytes.
struct DeviceLayer {
  PageShape shape;
  const uint8_t* device_base = nullptr;
  int64_t stride_bytes = kPageIdBytes;
  int64_t page_count = 0;  // ids are below
  uint64_t layer_offset_bytes = 0;
  std::vector<int32_t> page_ids;  // one a block, in order
};

// Threads: one reader may be used by one thread at a time; channel and memory are shared.
class DeviceReader {
 public:
  DeviceReader(std::shared_ptr<CacheChannel> channel, std::shared_ptr<const ResolvedSpec> spec,
               std::shared_ptr<DeviceMemory> memory, ReadDevice read);

  // The longest stored prefix of `token_ids`, moved to the GPU's memory and mapped; nothing stored
  // is a Match with blocks == 0. `options.device_uuid` and `share_session` are the memory's.
  // Replaces (and releases) an earlier match. FAILED_PRECONDITION: how many of the blocks are not
  // there (no room, or other leases hold them elsewhere), and no lease is held then: a DecodeReader
  // fetches them. UNAVAILABLE: the server has gone; open the memory anew.
  absl::StatusOr<Match> Lookup(absl::Span<const int32_t> token_ids, const LookupOptions& options);

  // Checks the headers of the layer's pages, and tells where they are. Errors as
  // DevicePages::CheckLayer; INVALID_ARGUMENT: no such layer; FAILED_PRECONDITION: no lease.
  absl::StatusOr<DeviceLayer> Layer(int layer);
  // When the layer's pages have been read. Errors likewise.
  absl::Status CheckUnchanged(int layer) const;

  // The exact tail, by gRPC under the same lease: it lies in host memory. As DecodeReader::Fetch,
  // with tail_pages only. FAILED_PRECONDITION: the match has none.
  absl::Status FetchTail(const std::function<absl::Status(FetchedLayer)>& on_layer);

  // Extends the lease from now on.
  absl::Status Renew(absl::Duration lease);
  // Pages must not be read any more: the caller's kernels are done.
  absl::Status Release();

 private:
  absl::Status CheckMatched(int layer) const;

  const std::shared_ptr<DeviceMemory> memory_;
  const std::shared_ptr<const ResolvedSpec> spec_;
  const ReadDevice read_;
  DecodeReader reader_;
  Match match_;
  std::unique_ptr<DevicePages> pages_;  // null: nothing is matched
};

}  // namespace turbokv
