// The order in which a store stream must come: layers ascending, each whole before the next.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace turbokv {

// Whole pages of a layer that come in one piece: positions as they came, untrusted.
struct BlockRun {
  uint32_t layer = 0;
  uint64_t first_block = 0;
  uint32_t block_count = 0;
};

// A position in one store: `unit` ("tokens" or "bytes of pages") of a layer, counted from 0.
class LayerOrder {
 public:
  LayerOrder(int layers, const char* unit) : layers_(layers), unit_(unit) {}

  // A chunk for `layer` comes. INVALID_ARGUMENT names what was expected: a layer out of range,
  // repeated, missing before this one, or begun before the current one is whole.
  absl::Status Enter(uint32_t layer);

  // Units of the current layer that have come, and how many make it whole.
  // Precondition: a layer was entered.
  uint64_t position() const { return position_; }
  void Advance(uint64_t units, uint64_t layer_units) {
    position_ += units;
    layer_units_ = layer_units;
  }

  int layer() const { return layer_; }

  // INVALID_ARGUMENT: what is missing now that the stream has ended.
  absl::Status CheckComplete() const;

 private:
  bool current_complete() const { return layer_ < 0 || position_ == layer_units_; }
  absl::Status Incomplete(const char* event) const;

  const int layers_;
  const char* const unit_;
  int layer_ = -1;
  uint64_t position_ = 0;
  uint64_t layer_units_ = 0;
};

// A run of whole pages, each of `page_units`, that stands at `position` of its layer and ends
// before block `end_block`. INVALID_ARGUMENT names what was expected.
absl::Status CheckRun(const BlockRun& run, uint64_t position, uint64_t page_units,
                      int64_t end_block);

}  // namespace turbokv
