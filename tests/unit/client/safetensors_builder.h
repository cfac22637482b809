// Safetensors files for tests, well-formed or not.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "client/safetensors.h"

namespace turbokv {

// A file of a header length, `json` and `data`.
inline std::string SafetensorsBytes(const std::string& json, const std::string& data,
                                    uint64_t header_bytes) {
  std::string file(8, '\0');
  for (int i = 0; i < 8; ++i) file[i] = static_cast<char>(header_bytes >> (8 * i) & 0xff);
  return file + json + data;
}

inline std::string SafetensorsBytes(const std::string& json, const std::string& data) {
  return SafetensorsBytes(json, data, json.size());
}

inline absl::Span<const uint8_t> AsBytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

template <typename T>
absl::Span<const uint8_t> AsBytes(const std::vector<T>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T)};
}

// A tensor that borrows `values`.
template <typename T>
Tensor TensorOf(TensorType type, std::vector<int64_t> shape, const std::vector<T>& values) {
  return {type, std::move(shape), AsBytes(values)};
}

}  // namespace turbokv
