// Blocks of a lease at their places in a GPU's pool that is mapped here: what kernels need to
// address them, and checks that they are what was asked for.
//
//   cuda::PagePool{shape, const_cast<uint8_t*>(pages.device_base()), kPageIdBytes,
//                  pages.page_count()}
//   block_tables row of layer l: pages.PageIds(l)
//
// Kernels only read pages; where the system lets memory be mapped read-only, a write would fault.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cache_spec.h"
#include "client/share/mapped_pool.h"
#include "client/share/shared_slab.h"
#include "kernels/format/page_header.h"

namespace turbokv {

// Ids count such steps from device_base(): the stride_bytes of the page pool.
inline constexpr int64_t kPageIdBytes = 128;

// Copies `bytes_each` bytes (a multiple of 16) from every device address to `host`, one after the
// other, and waits for them. client/cuda/cuda_page_reader.h has the one of GPUs.
using ReadDevice = std::function<absl::Status(
    uint8_t* host, absl::Span<const uint8_t* const> device, size_t bytes_each)>;

// Used by one thread.
class DevicePages {
 public:
  // Maps the slabs of `places`: block i, of tokens 128 i .. 128 i + 127, begins at places[i].
  // `pool` outlives the result. FAILED_PRECONDITION: "N of M blocks" are not in that pool (look up
  // again, or fetch another way), or a slab was renewed since; UNIMPLEMENTED: a pool too large for
  // page ids; INTERNAL: a place that no block can have. Else as MappedPool::Ensure.
  static absl::StatusOr<DevicePages> Map(MappedPool* pool, uint64_t lease_id,
                                         std::shared_ptr<const ResolvedSpec> spec,
                                         std::vector<SharedPlace> places);

  int64_t blocks() const { return static_cast<int64_t>(places_.size()); }
  const uint8_t* device_base() const { return pool_->base(); }
  int64_t page_count() const;  // ids are below

  // Precondition of all that take a layer: 0 <= layer < the spec's layers.
  uint64_t layer_offset_bytes(int layer) const { return layer_offsets_bytes_[layer]; }
  // One a block, in order: (place + layer_offset_bytes) / kPageIdBytes.
  std::vector<int32_t> PageIds(int layer) const;

  // Reads the headers of a layer's pages and keeps them. DATA_LOSS names the layer and block whose
  // header is not that of a page of this spec, layer and position. The bytes after the header are
  // the server's word: it has verified their checksum when it took them in.
  absl::Status CheckLayer(int layer, const ReadDevice& read);

  // After the layer's pages were read: whether they were what CheckLayer saw. DATA_LOSS: the lease
  // had ended and others took their place. FAILED_PRECONDITION: CheckLayer did not come before.
  absl::Status CheckUnchanged(int layer, const ReadDevice& read) const;

 private:
  DevicePages(MappedPool* pool, std::shared_ptr<const ResolvedSpec> spec,
              std::vector<SharedPlace> places);
  absl::Status MapSlabs(uint64_t lease_id);
  uint32_t SlabOf(const SharedPlace& place) const;
  absl::StatusOr<std::vector<PageHeader>> ReadHeaders(int layer, const ReadDevice& read) const;
  absl::Status CheckHeader(const PageHeader& header, int layer, int64_t block) const;

  MappedPool* pool_;
  std::shared_ptr<const ResolvedSpec> spec_;
  std::vector<SharedPlace> places_;
  std::vector<uint64_t> layer_offsets_bytes_;     // in a block
  std::vector<std::vector<PageHeader>> headers_;  // by layer; empty: not checked yet
};

}  // namespace turbokv
