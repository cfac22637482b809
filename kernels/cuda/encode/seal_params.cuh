// Arguments of the sealing kernel.
#pragma once

#include "kernels/cuda/encode/crc32c.cuh"
#include "kernels/cuda/encode/params.cuh"

namespace turbokv::cuda {

struct SealParams {
  uint8_t* pool;
  int64_t page_stride;
  const int32_t* page_ids;
  const PageState* states;
  CrcPlan crc;
  // A page's header, with what differs between pages left out, and checksum 0.
  uint32_t header[kCrcRowBytes / 4];
  uint64_t first_token;  // of page 0
  // Not null: where layer, spec, first_token, tokens and generation come from.
  const uint8_t* from_headers;
  int64_t from_stride;
  const int32_t* from_ids;
};

}  // namespace turbokv::cuda
