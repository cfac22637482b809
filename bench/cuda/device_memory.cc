#include "bench/cuda/device_memory.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "kernels/cuda/status.h"

namespace turbokv::bench {

using cuda::ToStatus;

absl::StatusOr<DeviceMemory> DeviceMemory::Allocate(size_t bytes) {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  TURBOKV_RETURN_IF_ERROR(ToStatus(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo"));
  if (bytes > free_bytes) {
    return absl::ResourceExhaustedError(absl::StrFormat("needs %.2f GiB more, %.2f GiB are free",
                                                        std::ldexp(bytes, -30),
                                                        std::ldexp(free_bytes, -30)));
  }
  void* data = nullptr;
  TURBOKV_RETURN_IF_ERROR(ToStatus(cudaMalloc(&data, bytes), "cudaMalloc"));
  return DeviceMemory(data, bytes);
}

absl::StatusOr<DeviceMemory> DeviceMemory::OfBytes(const void* values, size_t bytes) {
  TURBOKV_ASSIGN_OR_RETURN(DeviceMemory memory, Allocate(bytes));
  TURBOKV_RETURN_IF_ERROR(ToStatus(cudaMemcpy(memory.data_, values, bytes, cudaMemcpyHostToDevice),
                                   "copy to the device"));
  return memory;
}

absl::Status DeviceMemory::Fill(absl::Span<const uint8_t> pattern) {
  uint8_t* data = As<uint8_t>();
  size_t done = std::min(pattern.size(), bytes_);
  TURBOKV_RETURN_IF_ERROR(ToStatus(cudaMemcpy(data, pattern.data(), done, cudaMemcpyHostToDevice),
                                   "copy to the device"));
  while (done < bytes_) {
    // What is done is a multiple of the pattern, so its beginning is what comes next.
    const size_t count = std::min(done, bytes_ - done);
    TURBOKV_RETURN_IF_ERROR(
        ToStatus(cudaMemcpy(data + done, data, count, cudaMemcpyDeviceToDevice), "fill"));
    done += count;
  }
  return ToStatus(cudaDeviceSynchronize(), "fill");
}

absl::Status DeviceMemory::Read(size_t offset_bytes, void* to, size_t bytes) const {
  return ToStatus(cudaMemcpy(to, As<uint8_t>() + offset_bytes, bytes, cudaMemcpyDeviceToHost),
                  "copy from the device");
}

}  // namespace turbokv::bench
