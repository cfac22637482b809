// Reading and writing safetensors files. Untrusted input: every length is checked before use.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace turbokv {

enum class TensorType : uint8_t { kF32, kF16, kBf16, kI32, kI64, kU8 };
size_t TensorTypeBytes(TensorType type);
absl::string_view TensorTypeName(TensorType type);  // as in files: "F32"

struct Tensor {
  TensorType type = TensorType::kF32;
  std::vector<int64_t> shape;
  absl::Span<const uint8_t>
      bytes;  // little-endian, row-major; borrowed from the file or the caller

  int64_t elements() const;
};

// An open file (mapped read-only) or a buffer; tensors point into it. A file must not shrink while
// it is open. Copies share the mapping, and tensors live as long as the last copy.
class SafetensorsFile {
 public:
  // NOT_FOUND, or INVALID_ARGUMENT "FILE: reason" for anything malformed, truncated or overlapping.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);
  // `bytes` must outlive the result; `name` is for messages.
  static absl::StatusOr<SafetensorsFile> Parse(absl::Span<const uint8_t> bytes,
                                               const std::string& name);

  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // NOT_FOUND names the file and the tensor.
  absl::StatusOr<Tensor> Get(const std::string& name) const;

 private:
  std::string name_;
  std::shared_ptr<const void> storage_;  // keeps the mapping
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Writes atomically (a temporary file beside `path`, then rename).
absl::Status WriteSafetensors(const std::string& path, const std::map<std::string, Tensor>& tensors,
                              const std::map<std::string, std::string>& metadata = {});

// Values of an F32, F16 or BF16 tensor as float. INVALID_ARGUMENT for another type.
absl::StatusOr<std::vector<float>> ToFloats(const Tensor& tensor);

}  // namespace turbokv
