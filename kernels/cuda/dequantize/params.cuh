// Arguments of the dequantizing kernels: plain structs that host and device code share.
#pragma once

#include <cstdint>

#include "kernels/format/codec_id.h"

namespace turbokv::cuda {

inline constexpr int kMaxCentroidCount = 16;
// Byte offset of the header's token count (uint16).
inline constexpr int kHeaderTokensOffset = 20;

// Where a call's pages are. Offsets are inside a slice, of the tensor (K or V) that is decoded.
struct PageSource {
  const uint8_t* pool;
  int64_t page_stride;
  const int32_t* page_ids;
  int32_t heads;
  int32_t head_dim;
  int32_t slice_bytes;
  int32_t codes_offset;
  int32_t scales_offset;
  int32_t mean_offset;      // -1: no K mean
  int32_t exponent_offset;  // in the header
};

// K or V of one call of DequantizePages. Strides in bytes; indexing: DeviceKvSink.
struct DequantizeParams {
  PageSource source;
  float centroids[kMaxCentroidCount];  // turboN, of the head_dim's groups
  uint8_t* values;
  int64_t token_stride;
  int64_t head_stride;
  int64_t block_stride;
  const int64_t* slots;  // null: tokens lie one token_stride apart
  int32_t block_tokens;
  int32_t first_page;  // of this launch
  int32_t value_type;  // ValueType
};

// K or V of one call of RecodePages: decoded to [pages x 128][heads][head_dim] floats.
struct ExactDecodeParams {
  PageSource source;
  Codec codec;
  bool is_v;
  int32_t group_channels;
  double centroids[kMaxCentroidCount];  // turboN, of groups of 128
  double centroid_scale;                // of the head_dim's groups
  double inverse_root;                  // 1 / sqrt(group_channels)
  float* values;
};

}  // namespace turbokv::cuda
