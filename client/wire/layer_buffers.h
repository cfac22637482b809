// Memory for fetched layers, used again once a layer is let go.
//
// Fresh memory costs a page fault every 4 KiB, about as much as receiving into it; a reader that
// looks at one layer after the other needs only two buffers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/mutex.h"

namespace turbokv {

class LayerBuffers : public std::enable_shared_from_this<LayerBuffers> {
 public:
  // A buffer of at least `bytes`, 128-byte aligned, contents undefined. It comes back here when the
  // last reference goes, on any thread; buffers outlive this object where they must.
  std::shared_ptr<uint8_t> Get(size_t bytes);

 private:
  struct Free {
    void operator()(uint8_t* bytes) const;
  };
  struct Buffer {
    std::unique_ptr<uint8_t, Free> bytes;
    size_t capacity_bytes = 0;
  };
  static Buffer Allocate(size_t bytes);
  void Return(Buffer buffer);

  Mutex mutex_;
  std::vector<Buffer> idle_ ABSL_GUARDED_BY(mutex_);  // at most kMaxIdle
};

}  // namespace turbokv
