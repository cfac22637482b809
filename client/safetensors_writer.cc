#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/safetensors.h"
#include "client/safetensors_header.h"

namespace turbokv {
namespace {

// Tensors and their data start at a multiple of this in the file.
constexpr size_t kHeaderAlignmentBytes = 8;
constexpr mode_t kFileMode = 0644;

using Named = std::pair<const std::string, Tensor>;

absl::Status CheckTensors(const std::map<std::string, Tensor>& tensors) {
  for (const auto& [name, tensor] : tensors) {
    absl::StatusOr<int64_t> elements = ShapeElements(tensor.shape);
    if (!elements.ok() ||
        tensor.bytes.size() / TensorTypeBytes(tensor.type) != static_cast<size_t>(*elements)) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", QuoteName(name), ": ",
                                                     tensor.bytes.size(),
                                                     " bytes do not fit its shape and type"));
    }
  }
  return absl::OkStatus();
}

// Wide types first: every tensor is then aligned to its type without a gap.
std::vector<const Named*> WritingOrder(const std::map<std::string, Tensor>& tensors) {
  std::vector<const Named*> order;
  for (const Named& named : tensors) order.push_back(&named);
  std::stable_sort(order.begin(), order.end(), [](const Named* a, const Named* b) {
    return TensorTypeBytes(a->second.type) > TensorTypeBytes(b->second.type);
  });
  return order;
}

// Length and JSON, padded with blanks.
std::string BuildHeader(const std::vector<const Named*>& order,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset_bytes = 0;
  for (const Named* named : order) {
    const Tensor& tensor = named->second;
    header[named->first] = {{"dtype", std::string(TensorTypeName(tensor.type))},
                            {"shape", tensor.shape},
                            {"data_offsets", {offset_bytes, offset_bytes + tensor.bytes.size()}}};
    offset_bytes += tensor.bytes.size();
  }
  std::string json = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  json.resize(
      (json.size() + kHeaderAlignmentBytes - 1) / kHeaderAlignmentBytes * kHeaderAlignmentBytes,
      ' ');
  std::string length;
  for (int i = 0; i < 8; ++i) length.push_back(static_cast<char>(json.size() >> (8 * i) & 0xff));
  return length + json;
}

absl::Status WriteAll(int fd, const std::string& path, const void* data, size_t size_bytes) {
  const char* next = static_cast<const char*>(data);
  while (size_bytes > 0) {
    const ssize_t written = write(fd, next, size_bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot write"));
    next += written;
    size_bytes -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteSafetensors(const std::string& path, const std::map<std::string, Tensor>& tensors,
                              const std::map<std::string, std::string>& metadata) {
  TURBOKV_RETURN_IF_ERROR(CheckTensors(tensors));
  const std::vector<const Named*> order = WritingOrder(tensors);
  const std::string header = BuildHeader(order, metadata);

  std::string temporary = path + ".XXXXXX";
  const int fd = mkstemp(temporary.data());
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot create"));
  bool renamed = false;
  auto cleanup = absl::MakeCleanup([&] {
    close(fd);
    if (!renamed) unlink(temporary.c_str());
  });
  TURBOKV_RETURN_IF_ERROR(WriteAll(fd, path, header.data(), header.size()));
  for (const Named* named : order) {
    const absl::Span<const uint8_t> bytes = named->second.bytes;
    TURBOKV_RETURN_IF_ERROR(WriteAll(fd, path, bytes.data(), bytes.size()));
  }
  fchmod(fd, kFileMode);  // mkstemp makes it private
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot replace"));
  }
  renamed = true;
  return absl::OkStatus();
}

}  // namespace turbokv
