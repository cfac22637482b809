// Captures as files of the public llama.cpp blocks, and back.
//
//   layers.N.k, layers.N.v  U8 [kv_heads, tokens, bytes]: one token's head vector, head_dim / 128
//                           blocks of 34 (turbo2), 50 (turbo3) or 66 (turbo4) bytes
//   token_ids               as in the capture, where it has them
//   metadata                "format": "llama.cpp", "head_dim", "layers.N.k" and "layers.N.v": codec
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/capture.h"
#include "client/safetensors.h"
#include "kernels/format/policy.h"

namespace turbokv::cli {

struct ConvertSummary {
  int layers = 0, kv_heads = 0, head_dim = 0;
  int64_t tokens = 0;
  int64_t input_bytes = 0, output_bytes = 0;  // of K and V
  std::vector<LayerCodecs> codecs;
};

// Encodes without K mean, whatever `codecs` say of it: the public blocks have no place for it.
// INVALID_ARGUMENT: a codec without public blocks, a head_dim that is no multiple of 128.
absl::StatusOr<ConvertSummary> WriteLlamaFile(const Capture& capture,
                                              std::vector<LayerCodecs> codecs,
                                              const std::string& path,
                                              const std::function<void()>& on_layer_done);

// The values of such a file, as F32. The codec of each tensor is that of `policy` when given, else
// of the metadata, else the one that the block size tells. INVALID_ARGUMENT names the tensor.
absl::StatusOr<ConvertSummary> ReadLlamaFile(const SafetensorsFile& file,
                                             const std::optional<Policy>& policy,
                                             const std::string& path,
                                             const std::function<void()>& on_layer_done);

}  // namespace turbokv::cli
