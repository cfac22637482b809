// The JSON header of a safetensors file, checked against the file's size.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/safetensors.h"

namespace turbokv {

// The same limit as the public implementation of the format.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;
inline constexpr size_t kMaxTensorDimensions = 8;

// A tensor's place in the data that follows the header.
struct TensorEntry {
  TensorType type = TensorType::kF32;
  std::vector<int64_t> shape;
  uint64_t begin_bytes = 0;
  uint64_t end_bytes = 0;
};

struct SafetensorsHeader {
  std::map<std::string, TensorEntry> tensors;
  std::map<std::string, std::string> metadata;
};

// Parses `json` and checks that the tensors cover data of `data_bytes` bytes exactly, without
// overlap, and that shape, type and extent of each agree. INVALID_ARGUMENT says what is wrong.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::Span<const uint8_t> json,
                                                         uint64_t data_bytes);

// Elements of `shape`. INVALID_ARGUMENT: a negative dimension, or a product beyond int64.
absl::StatusOr<int64_t> ShapeElements(absl::Span<const int64_t> shape);

// `name` in quotes, escaped and cut to a length that fits a message.
std::string QuoteName(const std::string& name);

}  // namespace turbokv
