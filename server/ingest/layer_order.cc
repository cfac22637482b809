#include "server/ingest/layer_order.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace turbokv {

absl::Status LayerOrder::Enter(uint32_t layer) {
  if (layer >= static_cast<uint32_t>(layers_)) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer is ", layer, "; the spec has layers 0..", layers_ - 1));
  }
  const int wanted = static_cast<int>(layer);
  if (wanted == layer_ && !current_complete()) return absl::OkStatus();
  if (wanted <= layer_) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", wanted, " repeated: it was complete"));
  }
  if (!current_complete()) return Incomplete("the next layer began");
  if (wanted != layer_ + 1) {
    const std::string after = layer_ < 0 ? "at the start" : absl::StrCat("after ", layer_);
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", layer_ + 1, " missing: got ", wanted, " ", after));
  }
  layer_ = wanted;
  position_ = 0;
  layer_units_ = 0;
  return absl::OkStatus();
}

absl::Status LayerOrder::CheckComplete() const {
  if (!current_complete()) return Incomplete("the stream ended");
  if (layer_ == layers_ - 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("layers ", layer_ + 1, "..", layers_ - 1,
                                                 " missing: the stream ended before them"));
}

absl::Status LayerOrder::Incomplete(const char* event) const {
  return absl::InvalidArgumentError(absl::StrCat("layer ", layer_, " incomplete: ", position_,
                                                 " of ", layer_units_, " ", unit_, " came before ",
                                                 event));
}

absl::Status CheckRun(const BlockRun& run, uint64_t position, uint64_t page_units,
                      int64_t end_block) {
  const auto invalid = [&](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", run.layer, ": ", what...));
  };
  if (position % page_units != 0) {
    return invalid("a run begins inside block ", position / page_units);
  }
  const uint64_t block = position / page_units;
  if (run.first_block != block) {
    return invalid("expected first_block ", block, ", got ", run.first_block);
  }
  const uint64_t left = static_cast<uint64_t>(end_block) > block ? end_block - block : 0;
  if (run.block_count == 0 || run.block_count > left) {
    return invalid("block_count is ", run.block_count, " at first_block ", block, "; expected 1..",
                   left, ", none beyond the blocks and none of the tail");
  }
  return absl::OkStatus();
}

}  // namespace turbokv
