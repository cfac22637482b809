// Device memory that frees itself.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace turbokv::bench {

class DeviceMemory {
 public:
  // RESOURCE_EXHAUSTED, with the numbers, when the device has less than `bytes` free.
  static absl::StatusOr<DeviceMemory> Allocate(size_t bytes);
  // Holds a copy of `values`.
  template <typename T>
  static absl::StatusOr<DeviceMemory> Of(absl::Span<const T> values) {
    return OfBytes(values.data(), values.size() * sizeof(T));
  }

  DeviceMemory() = default;
  DeviceMemory(DeviceMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~DeviceMemory() { cudaFree(data_); }

  size_t bytes() const { return bytes_; }
  template <typename T>
  T* As() const {
    return static_cast<T*>(data_);
  }

  // Repeats `pattern` over the whole memory.
  absl::Status Fill(absl::Span<const uint8_t> pattern);
  // Copies `bytes` from `offset_bytes` on to the host.
  absl::Status Read(size_t offset_bytes, void* to, size_t bytes) const;

 private:
  DeviceMemory(void* data, size_t bytes) : data_(data), bytes_(bytes) {}
  static absl::StatusOr<DeviceMemory> OfBytes(const void* values, size_t bytes);

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace turbokv::bench
