// A layer of a capture as pages, and pages as values.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/capture.h"
#include "client/safetensors.h"
#include "kernels/format/page_header.h"
#include "kernels/format/policy.h"

namespace turbokv::cli {

// K and V of one layer, each [kv_heads][tokens][head_dim].
struct LayerValues {
  LayerValues(int kv_heads_in, int64_t tokens_in, int head_dim_in);

  int kv_heads;
  int64_t tokens;
  int head_dim;
  std::vector<float> k, v;
};

using PageBytes = std::vector<uint8_t>;

// All tokens of a layer, in pages of 128; the last may hold fewer. INVALID_ARGUMENT names the layer
// and what its codec refuses.
absl::StatusOr<std::vector<PageBytes>> EncodeLayer(const Capture& capture, int layer,
                                                   const LayerCodecs& codecs);

// Decodes a page of the same shape into `values` from token `first_token` on.
// INVALID_ARGUMENT: another shape, or tokens beyond the end.
absl::Status DecodeInto(absl::Span<const uint8_t> page, int64_t first_token, LayerValues* values);

// [kv_heads, tokens, head_dim] as a file holds it.
PageBytes ValueBytesOf(const std::vector<float>& values, TensorType type);

}  // namespace turbokv::cli
