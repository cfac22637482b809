#include "client/wire/layer_assembler.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv {

LayerAssembler::LayerAssembler(std::shared_ptr<const ResolvedSpec> spec, const LayerExtent& extent,
                               int layer, LayerBuffers* buffers)
    : spec_(std::move(spec)),
      extent_(extent),
      layer_(layer),
      page_bytes_(spec_->layer_layouts[layer].page_bytes),
      tail_page_bytes_(spec_->tail_layout.page_bytes),
      expected_bytes_(extent.blocks * page_bytes_ + extent.tail_pages() * tail_page_bytes_),
      storage_(buffers->Get(expected_bytes_)) {}

absl::Status LayerAssembler::Append(uint64_t offset, uint64_t layer_bytes,
                                    absl::Span<const absl::Span<const uint8_t>> pieces,
                                    size_t bytes) {
  if (layer_bytes != expected_bytes_ || offset != received_bytes_ ||
      bytes > expected_bytes_ - received_bytes_) {
    return absl::InternalError(absl::StrCat("layer ", layer_, ": the server sent bytes ", offset,
                                            "..+", bytes, " of ", layer_bytes, ", expected ",
                                            received_bytes_, "... of ", expected_bytes_));
  }
  for (const absl::Span<const uint8_t> piece : pieces) {
    std::memcpy(storage_.get() + received_bytes_, piece.data(), piece.size());
    received_bytes_ += piece.size();
  }
  // Here, while the page is still in the processor's cache.
  const int64_t pages = extent_.blocks + extent_.tail_pages();
  while (checked_pages_ < pages) {
    const Slot slot = NextSlot();
    if (slot.offset + slot.bytes > received_bytes_) break;
    TURBOKV_RETURN_IF_ERROR(CheckFetchedPage(*spec_, extent_, {layer_, slot.tail, slot.index},
                                             {storage_.get() + slot.offset, slot.bytes}));
    ++checked_pages_;
  }
  return absl::OkStatus();
}

LayerAssembler::Slot LayerAssembler::NextSlot() const {
  if (checked_pages_ < extent_.blocks) {
    return {false, checked_pages_, checked_pages_ * page_bytes_, page_bytes_};
  }
  const int64_t tail_page = checked_pages_ - extent_.blocks;
  return {true, tail_page, extent_.blocks * page_bytes_ + tail_page * tail_page_bytes_,
          tail_page_bytes_};
}

FetchedLayer LayerAssembler::Take() {
  FetchedLayer layer;
  layer.layer = layer_;
  const uint8_t* next = storage_.get();
  for (int64_t block = 0; block < extent_.blocks; ++block, next += page_bytes_) {
    layer.pages.emplace_back(next, page_bytes_);
  }
  for (int page = 0; page < extent_.tail_pages(); ++page, next += tail_page_bytes_) {
    layer.tail_pages.emplace_back(next, tail_page_bytes_);
  }
  layer.storage = std::move(storage_);
  return layer;
}

}  // namespace turbokv
