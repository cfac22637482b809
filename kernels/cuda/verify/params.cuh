// Arguments of the verifying kernel.
#pragma once

#include "kernels/cuda/encode/crc32c.cuh"

namespace turbokv::cuda {

// The header's words that a shape decides, and which of their bits.
inline constexpr int kExpectedWords = 7;
struct ExpectedHeader {
  uint32_t words[kExpectedWords];
  uint32_t masks[kExpectedWords];
};

TURBOKV_HOST_DEVICE bool IsExpected(const ExpectedHeader& header, int word, uint32_t value) {
  return word >= kExpectedWords || ((value ^ header.words[word]) & header.masks[word]) == 0;
}

struct VerifyParams {
  const uint8_t* pool;
  int64_t page_stride;
  const int32_t* page_ids;
  CrcPlan crc;
  ExpectedHeader header;
  uint32_t* bad_page;
};

}  // namespace turbokv::cuda
