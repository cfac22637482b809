// Encodes K and V of a test on the GPU and compares with the reference's pages.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/encode/encode.h"
#include "kernels/format/page_header.h"
#include "tests/unit/kernels/cuda/gpu.h"

namespace turbokv::cuda::testing {

inline constexpr PageIdentity kEncodeIdentity{3, 1, 4096, 0x1122334455667788};

// Which section of a page byte `offset` is in.
std::string DescribeOffset(const PageLayout& layout, size_t offset);

// The reference's page of tokens 128 page .. of `kv`.
std::vector<uint8_t> ReferencePage(const PageLayout& layout, const KvView& kv, int page);

// Empty if equal; otherwise where the first difference is.
std::string Difference(const PageLayout& layout, absl::Span<const uint8_t> actual,
                       absl::Span<const uint8_t> expected);

// Device memory for a call: a poisoned pool of twice as many pages as are encoded, pages in
// shuffled places.
class EncodeRun {
 public:
  EncodeRun(const PageLayout& layout, int pages);

  // Everything but the source.
  EncodeArguments Arguments();
  // Page i as encoded.
  std::vector<uint8_t> Page(int i) const;
  // Empty, or which byte outside of the encoded pages is not poison any more.
  std::string WrittenOutside() const;
  uint32_t NonFinitePage() const { return non_finite_.Download()[0]; }

 private:
  const PageLayout layout_;
  const int pages_;
  const int64_t stride_bytes_;
  std::vector<int32_t> page_ids_;
  DeviceBuffer<uint8_t> pool_;
  DeviceBuffer<int32_t> device_page_ids_;
  DeviceBuffer<uint32_t> non_finite_;
  DeviceBuffer<uint8_t> workspace_;
};

// K and V of a view, which must be dense, in device memory.
class DeviceKv {
 public:
  DeviceKv(const KvView& kv, int kv_heads, int head_dim);
  const DeviceKvSource& source() const { return source_; }

 private:
  DeviceBuffer<uint8_t> k_;
  DeviceBuffer<uint8_t> v_;
  DeviceKvSource source_;
};

// Encodes kv.tokens / 128 pages and expects the reference's.
void ExpectReferencePages(const PageLayout& layout, const KvView& kv);
void ExpectReferencePages(const PageLayout& layout, const KvView& kv, const DeviceKvSource& source);

}  // namespace turbokv::cuda::testing
