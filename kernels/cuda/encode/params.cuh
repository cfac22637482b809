// Arguments of the encoding kernels: plain structs that host and device code share.
#pragma once

#include <cstdint>

#include "kernels/cuda/encode/codebook.cuh"

namespace turbokv::cuda {

// What the kernels of one call tell each other about a page; all zero at first. [0] is K, [1] V.
struct PageState {
  // Bounds of the largest norm of the page's vectors (groups), as float bits, which compare like
  // the floats; a NaN's are the largest. Zero: not known.
  uint32_t norm_above[2];
  uint32_t norm_below[2];
  int32_t exponent[2];
  int32_t skip;  // a token's slot is negative: the page stays as it is
  int32_t reserved;
};

// K or V of one call.
struct TensorParams {
  // Source; strides in bytes. Indexing: DeviceKvSource (encode.h).
  const uint8_t* values;
  int64_t token_stride;
  int64_t head_stride;
  int64_t block_stride;
  const int64_t* slots;  // null: tokens lie one token_stride apart
  int32_t block_tokens;
  int32_t value_type;  // ValueType
  // Destination.
  uint8_t* pool;
  int64_t page_stride;
  const int32_t* page_ids;
  PageState* states;
  int32_t pages;
  int32_t heads;
  int32_t head_dim;
  int32_t slice_bytes;
  // Inside a slice; mean_offset is -1 without K mean.
  int32_t codes_offset;
  int32_t scales_offset;
  int32_t scales_end;  // scales and the padding behind them end here
  int32_t mean_offset;
  Codec codec;
  bool is_v;
  bool encoded_with_zero_exponent;  // by the kernel for rotated codecs
  Codebook codebook;                // turboN, of the head_dim's groups
};

}  // namespace turbokv::cuda
