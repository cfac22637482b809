// Captures: the K/V (and some queries) of a prompt, in a safetensors file.
//
//   layers.N.k, layers.N.v  [kv_heads, tokens, head_dim]      F32, F16 or BF16
//   layers.N.q              [q_heads, last tokens, head_dim]  optional
//   token_ids               [tokens]                          I32 or I64
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/safetensors.h"
#include "kernels/kv_view.h"

namespace turbokv {

struct CaptureLayer {
  Tensor k, v;
  std::optional<Tensor> q;
};

struct Capture {
  SafetensorsFile file;
  ValueType type = ValueType::kBf16;
  int layers = 0, kv_heads = 0, q_heads = 0, head_dim = 0, q_tokens = 0;
  int64_t tokens = 0;
  std::vector<int32_t> token_ids;
  std::vector<CaptureLayer> layer;

  KvView View(int layer_index) const;  // HND view of a layer
};

// INVALID_ARGUMENT names the file, the tensor and what is wrong: a layer missing, shapes or types
// that disagree, a head_dim that is not supported.
absl::StatusOr<Capture> OpenCapture(const std::string& path);

}  // namespace turbokv
