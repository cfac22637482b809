// Puts the chunks of a fetched layer together and checks every page as soon as it is whole.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cache_spec.h"
#include "client/decode_reader.h"
#include "client/wire/layer_buffers.h"
#include "client/wire/page_check.h"

namespace turbokv {

class LayerAssembler {
 public:
  LayerAssembler(std::shared_ptr<const ResolvedSpec> spec, const LayerExtent& extent, int layer,
                 LayerBuffers* buffers);

  size_t expected_bytes() const { return expected_bytes_; }
  bool complete() const { return received_bytes_ == expected_bytes_; }

  // Appends a chunk that claims to stand at `offset` of a run of `layer_bytes`. Untrusted input.
  // DATA_LOSS names the layer and the block of a page whose checksum fails; INTERNAL: a server that
  // breaks the protocol, or pages that are not what the spec says.
  absl::Status Append(uint64_t offset, uint64_t layer_bytes,
                      absl::Span<const absl::Span<const uint8_t>> pieces, size_t bytes);

  // Precondition: complete().
  FetchedLayer Take();

 private:
  struct Slot {
    bool tail;
    int64_t index;  // of the block in the fetch, or of the tail page
    size_t offset;
    size_t bytes;
  };
  Slot NextSlot() const;

  const std::shared_ptr<const ResolvedSpec> spec_;
  const LayerExtent extent_;
  const int layer_;
  const size_t page_bytes_;
  const size_t tail_page_bytes_;
  const size_t expected_bytes_;
  std::shared_ptr<uint8_t> storage_;
  size_t received_bytes_ = 0;
  int64_t checked_pages_ = 0;
};

}  // namespace turbokv
