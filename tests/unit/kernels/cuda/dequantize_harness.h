// Pages and sinks of DequantizePages in device memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/dequantize/dequantize.h"
#include "tests/unit/kernels/cuda/dequantize_oracle.h"
#include "tests/unit/kernels/cuda/gpu.h"

namespace turbokv::cuda::testing {

// Pages in shuffled places of a pool of twice as many; the rest is poison.
class PagesOnDevice {
 public:
  PagesOnDevice(const PageLayout& layout, std::vector<std::vector<uint8_t>> pages);

  const PagePool& pool() const { return pool_; }
  const int32_t* page_ids() const { return device_page_ids_.data(); }
  const std::vector<std::vector<uint8_t>>& pages() const { return pages_; }

 private:
  const std::vector<std::vector<uint8_t>> pages_;
  std::vector<int32_t> page_ids_;
  DeviceBuffer<uint8_t> memory_;
  DeviceBuffer<int32_t> device_page_ids_;
  PagePool pool_;
};

// Where a token's values go, in values: DeviceKvSink without pointers.
struct SinkLayout {
  ValueType type = ValueType::kBf16;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
  int64_t block_stride = 0;
  int block_tokens = 0;
  std::vector<int64_t> slots;  // of every token; empty: none

  // Of value (token, head, 0), or -1 if the token is skipped.
  int64_t Index(int64_t token, int head) const;
};

enum class SinkKind {
  kNhd,       // rows padded by 16 values
  kHnd,       //
  kPagedNhd,  // blocks of 16 tokens, shuffled, every seventh token skipped
  kPagedHnd,  // blocks of 48 tokens, padded, likewise
};
inline constexpr SinkKind kSinkKinds[] = {SinkKind::kNhd, SinkKind::kHnd, SinkKind::kPagedNhd,
                                          SinkKind::kPagedHnd};
SinkLayout MakeSink(SinkKind kind, ValueType type, const PageShape& shape, int pages);

// Dequantizes into poisoned memory; expects the reference's values and everything else untouched.
void ExpectDequantized(const PagesOnDevice& pages, const SinkLayout& sink, bool want_k = true,
                       bool want_v = true);

}  // namespace turbokv::cuda::testing
