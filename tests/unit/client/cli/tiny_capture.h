// The capture that the repository carries, whole or its first tokens.
#pragma once

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/capture.h"
#include "tests/unit/client/safetensors_builder.h"
#include "tests/unit/client/temp_dir.h"

namespace turbokv {

inline std::string TinyCapturePath() {
  return TURBOKV_SOURCE_DIR "/examples/data/captures/tiny-d128.safetensors";
}

// Writes a capture of the first `tokens` tokens of `layers` layers, as F32 and without queries.
inline std::string WriteShortCapture(const TempDir& dir, int layers, int tokens) {
  const Capture whole = *OpenCapture(TinyCapturePath());
  std::map<std::string, Tensor> tensors;
  std::vector<std::vector<float>> storage;
  storage.reserve(2 * layers);
  for (int n = 0; n < layers; ++n) {
    for (const char* part : {"k", "v"}) {
      const std::vector<float> values =
          *ToFloats(part[0] == 'k' ? whole.layer[n].k : whole.layer[n].v);
      std::vector<float> kept;
      for (int head = 0; head < whole.kv_heads; ++head) {
        const auto first = values.begin() + head * whole.tokens * whole.head_dim;
        kept.insert(kept.end(), first, first + tokens * whole.head_dim);
      }
      storage.push_back(std::move(kept));
      tensors[LayerTensorName(n, part)] =
          TensorOf(TensorType::kF32, {whole.kv_heads, tokens, whole.head_dim}, storage.back());
    }
  }
  const std::vector<int32_t> ids(whole.token_ids.begin(), whole.token_ids.begin() + tokens);
  tensors["token_ids"] = TensorOf(TensorType::kI32, {tokens}, ids);
  const std::string path = dir.Path("short.safetensors");
  EXPECT_TRUE(WriteSafetensors(path, tensors).ok());
  return path;
}

}  // namespace turbokv
