// Whatever the bytes are, the safetensors reader refuses them or gives tensors inside them.
#include <cstddef>
#include <cstdint>

#include "client/capture.h"
#include "client/safetensors.h"
#include "tests/fuzz/require.h"

namespace {

void CheckInside(const turbokv::Tensor& tensor, absl::Span<const uint8_t> file) {
  turbokv::Require(tensor.bytes.size() == tensor.elements() * turbokv::TensorTypeBytes(tensor.type),
                   "a tensor has the bytes of its shape");
  if (tensor.bytes.empty()) return;
  turbokv::Require(tensor.bytes.data() >= file.data() &&
                       tensor.bytes.data() + tensor.bytes.size() <= file.data() + file.size(),
                   "a tensor lies inside the file");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::Span<const uint8_t> bytes(data, size);
  absl::StatusOr<turbokv::SafetensorsFile> file = turbokv::SafetensorsFile::Parse(bytes, "fuzz");
  if (!file.ok()) return 0;
  for (const auto& [name, tensor] : file->tensors()) {
    CheckInside(tensor, bytes);
    const absl::StatusOr<std::vector<float>> floats = turbokv::ToFloats(tensor);
    turbokv::Require(!floats.ok() || floats->size() == static_cast<size_t>(tensor.elements()),
                     "every element becomes a float");
  }
  const absl::StatusOr<turbokv::Capture> capture = turbokv::ReadCapture(*file, "fuzz");
  if (!capture.ok()) return 0;
  turbokv::Require(static_cast<int>(capture->layer.size()) == capture->layers,
                   "a capture has all its layers");
  for (const turbokv::CaptureLayer& layer : capture->layer) {
    turbokv::Require(layer.k.shape == layer.v.shape, "K and V agree");
  }
  return 0;
}
