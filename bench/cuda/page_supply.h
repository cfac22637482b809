// Random K and V, and pages made of them: memory that looks as if a service had filled it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/thread_pool.h"
#include "bench/cuda/device_memory.h"
#include "kernels/cuda/page_pool.h"
#include "kernels/kv_view.h"

namespace turbokv::bench {

// bf16 bits of `count` standard normal values, reproducible.
std::vector<uint16_t> GaussianBf16(size_t count, uint32_t seed);

// A pool in device memory, every page of it encoded, and its page ids in random order.
struct FilledPool {
  DeviceMemory memory;
  DeviceMemory ids;  // int32 [pages]
  std::vector<int32_t> host_ids;
  cuda::PagePool pool;
  PageLayout layout;
};

class PageSupply {
 public:
  static constexpr int kDistinctPages = 256;

  PageSupply();

  // Device memory is filled by repeating the first kDistinctPages pages.
  absl::StatusOr<FilledPool> Fill(const PageShape& shape, int pages);

  // The K and V that distinct page `index` holds.
  KvView Source(const PageShape& shape, int index) const;

  // That many distinct pages of one shape, one after the other.
  absl::StatusOr<absl::Span<const uint8_t>> Encoded(const PageLayout& layout, int pages);

 private:
  const std::vector<uint16_t> values_;
  ThreadPool threads_;
  // What was encoded last, kept for the next case of the same shape.
  PageShape shape_;
  std::vector<uint8_t> encoded_;
};

}  // namespace turbokv::bench
