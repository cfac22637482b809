// Captures: the K/V (and some queries) of a prompt, in a safetensors file.
//
//   layers.N.k, layers.N.v  [kv_heads, tokens, head_dim]      F32, F16 or BF16, the same everywhere
//   layers.N.q              [q_heads, last tokens, head_dim]  optional; F32, F16 or BF16
//   token_ids               [tokens]                          I32 or I64; needed to store the
//   capture
//
// Other tensors are ignored.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/safetensors.h"
#include "kernels/kv_view.h"

namespace turbokv {

struct CaptureLayer {
  // Aligned to their element, wherever the file has them.
  Tensor k, v;
  std::optional<Tensor> q;
};

struct Capture {
  SafetensorsFile file;
  ValueType type = ValueType::kBf16;
  int layers = 0, kv_heads = 0, q_heads = 0, head_dim = 0, q_tokens = 0;
  int64_t tokens = 0;
  std::vector<int32_t> token_ids;  // empty when the file has none
  std::vector<CaptureLayer> layer;
  // Copies of the tensors that the file does not align.
  std::vector<std::shared_ptr<const std::vector<uint8_t>>> aligned_copies;

  // HND view of a layer, or of tokens [first, first + count) of it.
  KvView View(int layer_index) const;
  KvView View(int layer_index, int64_t first_token, int count) const;
};

// NOT_FOUND, or INVALID_ARGUMENT that names the file, the tensor and what is wrong: a layer
// missing, shapes or types that disagree, a head_dim that is not supported.
absl::StatusOr<Capture> OpenCapture(const std::string& path);
absl::StatusOr<Capture> ReadCapture(SafetensorsFile file, const std::string& name);

// The tensor `token_ids`. INVALID_ARGUMENT: not one-dimensional, not I32 or I64, an id outside
// 0..2^31-1.
absl::StatusOr<std::vector<int32_t>> ReadTokenIds(const Tensor& tensor);

// Number of layers named by tensors layers.N.k, .v or .q. INVALID_ARGUMENT: none, or too many.
absl::StatusOr<int> CountLayers(const SafetensorsFile& file);

// "layers.N.part", for part "k", "v" or "q".
std::string LayerTensorName(int layer, const std::string& part);

TensorType TensorTypeOf(ValueType type);

}  // namespace turbokv
