// A size class of pages in GPU memory, as every GPU operation addresses it.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/format/page_layout.h"

namespace turbokv::cuda {

// Page `id` (0 <= id < page_count) begins at device_base + id x stride_bytes. Borrowed memory. The
// stride may be smaller than a page, down to 128 bytes: then ids address pages that lie anywhere,
// which must not overlap.
struct PagePool {
  PageShape shape;                 // of every page in the pool
  uint8_t* device_base = nullptr;  // 128-byte aligned
  int64_t stride_bytes = 0;        // a multiple of 128
  int64_t page_count = 0;          // at most 2^31 - 1
};

// UNIMPLEMENTED names a head_dim that no GPU kernel takes.
absl::Status CheckGpuHeadDim(int head_dim);

// INVALID_ARGUMENT names the field, its value and the limit; UNIMPLEMENTED for a shape that no GPU
// kernel takes (head_dim other than 64, 128, 256). `layout` may be null.
absl::Status ValidatePagePool(const PagePool& pool, PageLayout* layout);

}  // namespace turbokv::cuda
