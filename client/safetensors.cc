#include "client/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/safetensors_header.h"
#include "kernels/format/small_floats.h"

namespace turbokv {
namespace {

constexpr size_t kLengthBytes = 8;

absl::Status ErrnoStatus(const std::string& path, const std::string& action, int error) {
  return absl::ErrnoToStatus(error, absl::StrCat(path, ": cannot ", action));
}

// A read-only mapping of a whole regular file.
class Mapping {
 public:
  static absl::StatusOr<std::shared_ptr<const Mapping>> Open(const std::string& path) {
    // O_NONBLOCK: a pipe must not hang the caller before it is refused below.
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return ErrnoStatus(path, "open", errno);
    absl::StatusOr<std::shared_ptr<const Mapping>> mapping = Map(path, fd);
    close(fd);
    return mapping;
  }

  Mapping(void* address, size_t size_bytes) : address_(address), size_bytes_(size_bytes) {}
  ~Mapping() {
    if (size_bytes_ > 0) munmap(address_, size_bytes_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  absl::Span<const uint8_t> bytes() const {
    return {static_cast<const uint8_t*>(address_), size_bytes_};
  }

 private:
  static absl::StatusOr<std::shared_ptr<const Mapping>> Map(const std::string& path, int fd) {
    struct stat info;
    if (fstat(fd, &info) != 0) return ErrnoStatus(path, "inspect", errno);
    if (!S_ISREG(info.st_mode)) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
    }
    const size_t size_bytes = static_cast<size_t>(info.st_size);
    if (size_bytes == 0) return std::make_shared<const Mapping>(nullptr, 0);
    void* address = mmap(nullptr, size_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (address == MAP_FAILED) return ErrnoStatus(path, "map", errno);
    return std::make_shared<const Mapping>(address, size_bytes);
  }

  void* address_;
  size_t size_bytes_;
};

uint64_t LoadLittleEndian64(const uint8_t* bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

}  // namespace

size_t TensorTypeBytes(TensorType type) {
  switch (type) {
    case TensorType::kI64:
      return 8;
    case TensorType::kF32:
    case TensorType::kI32:
      return 4;
    case TensorType::kF16:
    case TensorType::kBf16:
      return 2;
    case TensorType::kU8:
      break;
  }
  return 1;
}

absl::string_view TensorTypeName(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return "F32";
    case TensorType::kF16:
      return "F16";
    case TensorType::kBf16:
      return "BF16";
    case TensorType::kI32:
      return "I32";
    case TensorType::kI64:
      return "I64";
    case TensorType::kU8:
      break;
  }
  return "U8";
}

int64_t Tensor::elements() const {
  int64_t elements = 1;
  for (int64_t dimension : shape) elements *= dimension;
  return elements;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  TURBOKV_ASSIGN_OR_RETURN(std::shared_ptr<const Mapping> mapping, Mapping::Open(path));
  TURBOKV_ASSIGN_OR_RETURN(SafetensorsFile file, Parse(mapping->bytes(), path));
  file.storage_ = std::move(mapping);
  return file;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Parse(absl::Span<const uint8_t> bytes,
                                                       const std::string& name) {
  if (bytes.size() < kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": ", bytes.size(),
                     " bytes are no safetensors file: it begins with an "
                     "8-byte header length"));
  }
  const uint64_t header_bytes = LoadLittleEndian64(bytes.data());
  if (header_bytes > kMaxSafetensorsHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": header length ", header_bytes, " is above the limit of ",
                     kMaxSafetensorsHeaderBytes, " bytes: not a safetensors file, or damaged"));
  }
  const uint64_t after_length_bytes = bytes.size() - kLengthBytes;
  if (header_bytes > after_length_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": header length ", header_bytes, " is beyond the file's end (",
                     after_length_bytes, " bytes follow): it is truncated or damaged"));
  }
  const absl::Span<const uint8_t> data = bytes.subspan(kLengthBytes + header_bytes);
  absl::StatusOr<SafetensorsHeader> header =
      ParseSafetensorsHeader(bytes.subspan(kLengthBytes, header_bytes), data.size());
  if (!header.ok()) {
    return absl::Status(header.status().code(),
                        absl::StrCat(name, ": ", header.status().message()));
  }
  SafetensorsFile file;
  file.name_ = name;
  file.metadata_ = std::move(header->metadata);
  for (auto& [tensor_name, entry] : header->tensors) {
    file.tensors_[tensor_name] = {
        entry.type, std::move(entry.shape),
        data.subspan(entry.begin_bytes, entry.end_bytes - entry.begin_bytes)};
  }
  return file;
}

absl::StatusOr<Tensor> SafetensorsFile::Get(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    return absl::NotFoundError(absl::StrCat(name_, ": no tensor ", QuoteName(name)));
  }
  return it->second;
}

absl::StatusOr<std::vector<float>> ToFloats(const Tensor& tensor) {
  if (tensor.type != TensorType::kF32 && tensor.type != TensorType::kF16 &&
      tensor.type != TensorType::kBf16) {
    return absl::InvalidArgumentError(absl::StrCat("a tensor of ",
                                                   std::string(TensorTypeName(tensor.type)),
                                                   " where F32, F16 or BF16 is needed"));
  }
  std::vector<float> values(tensor.bytes.size() / TensorTypeBytes(tensor.type));
  if (tensor.type == TensorType::kF32) {
    if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    // Files promise no alignment.
    uint16_t bits;
    std::memcpy(&bits, tensor.bytes.data() + 2 * i, sizeof(bits));
    values[i] = tensor.type == TensorType::kBf16 ? Bf16ToFloat(bits) : Fp16ToFloat(bits);
  }
  return values;
}

}  // namespace turbokv
