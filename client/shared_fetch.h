// A fetch that moves nothing: pages are looked at where the server keeps them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cache_spec.h"
#include "client/decode_reader.h"
#include "client/shared_memory.h"
#include "client/wire/page_check.h"
#include "kernels/format/page_header.h"

namespace turbokv {

// Used by one thread.
class SharedFetch {
 public:
  // Maps the slabs of `places`: those of the extent's blocks, then of the tail if it has one.
  // FAILED_PRECONDITION: some are not in host memory, or have been renewed: fetch another way.
  static absl::StatusOr<SharedFetch> Open(std::shared_ptr<SharedMemory> memory, uint64_t lease_id,
                                          std::shared_ptr<const ResolvedSpec> spec,
                                          const LayerExtent& extent,
                                          absl::Span<const SharedPlace> places);

  // Pages checked by checksum, header and spec; they are the server's memory, mapped as long as
  // `storage` is held, and what was checked as long as the lease is held. Errors as
  // CheckFetchedPage; INTERNAL also for a place that no page can have.
  absl::StatusOr<FetchedLayer> Layer(int layer);

  // Whether the pages of the layer are still those that Layer gave. DATA_LOSS: the lease had ended
  // and others took their place while they were read.
  absl::Status CheckUnchanged(const FetchedLayer& layer) const;

  size_t layer_bytes() const { return layer_bytes_; }  // of the last layer

 private:
  SharedFetch() = default;
  absl::StatusOr<absl::Span<const uint8_t>> PageAt(const FetchedPage& page) const;
  absl::Status AddPage(const FetchedPage& page, std::vector<absl::Span<const uint8_t>>* pages);

  std::shared_ptr<SharedMemory> memory_;
  std::shared_ptr<const ResolvedSpec> spec_;
  LayerExtent extent_;
  std::vector<SharedPlace> places_;
  std::vector<uint64_t> layer_offsets_bytes_;  // in a block
  std::vector<PageHeader> headers_;            // of the last layer
  size_t layer_bytes_ = 0;
};

}  // namespace turbokv
