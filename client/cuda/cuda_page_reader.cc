#include "client/cuda/cuda_page_reader.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cuda/current_gpu.h"
#include "kernels/cuda/copy/copy.h"
#include "kernels/cuda/status.h"

namespace turbokv {
namespace {

constexpr size_t kDescriptorBytes = sizeof(cuda::CopyDescriptor);
constexpr size_t kCopyMultipleBytes = 16;
// Headers of that many pages share one launch.
constexpr size_t kCopiesALaunch = 4096;
constexpr size_t kMaxBytesEach = 4096;

class PageReader {
 public:
  ~PageReader() {
    const GpuScope scope(gpu_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
    cudaFreeHost(pinned_);
    cudaFree(device_);
  }

  absl::Status Start() {
    TURBOKV_RETURN_IF_ERROR(cuda::ToStatus(cudaGetDevice(&gpu_), "the current GPU"));
    return cuda::ToStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream");
  }

  absl::Status Read(uint8_t* host, absl::Span<const uint8_t* const> pages, size_t bytes_each) {
    if (bytes_each == 0 || bytes_each % kCopyMultipleBytes != 0 || bytes_each > kMaxBytesEach) {
      return absl::InvalidArgumentError(absl::StrCat("bytes_each is ", bytes_each,
                                                     "; must be a multiple of ", kCopyMultipleBytes,
                                                     " up to ", kMaxBytesEach));
    }
    const GpuScope scope(gpu_);
    TURBOKV_RETURN_IF_ERROR(scope.status());
    for (size_t begin = 0; begin < pages.size(); begin += kCopiesALaunch) {
      TURBOKV_RETURN_IF_ERROR(
          ReadSome(host + begin * bytes_each, pages.subspan(begin, kCopiesALaunch), bytes_each));
    }
    return absl::OkStatus();
  }

 private:
  // Descriptors first, then what they gather, in the GPU's memory as in pinned memory.
  absl::Status ReadSome(uint8_t* host, absl::Span<const uint8_t* const> pages, size_t bytes_each) {
    const size_t descriptor_bytes = pages.size() * kDescriptorBytes;
    const size_t gathered_offset_bytes =
        (descriptor_bytes + kPageIdBytes - 1) / kPageIdBytes * kPageIdBytes;
    const size_t gathered_bytes = pages.size() * bytes_each;
    TURBOKV_RETURN_IF_ERROR(Grow(gathered_offset_bytes + gathered_bytes));
    uint8_t* const gathered = device_ + gathered_offset_bytes;
    auto* const descriptors = reinterpret_cast<cuda::CopyDescriptor*>(pinned_);
    for (size_t i = 0; i < pages.size(); ++i) {
      descriptors[i] = {pages[i], gathered + i * bytes_each, bytes_each};
    }
    const cuda::CopyArguments arguments = {
        .copies = reinterpret_cast<const cuda::CopyDescriptor*>(device_),
        .count = static_cast<int>(pages.size()),
        .largest_bytes = bytes_each};
    TURBOKV_RETURN_IF_ERROR(Copy(device_, pinned_, descriptor_bytes));
    TURBOKV_RETURN_IF_ERROR(cuda::CopyPages(arguments, stream_));
    TURBOKV_RETURN_IF_ERROR(Copy(pinned_ + gathered_offset_bytes, gathered, gathered_bytes));
    TURBOKV_RETURN_IF_ERROR(
        cuda::ToStatus(cudaStreamSynchronize(stream_), "reading headers of pages"));
    std::copy_n(pinned_ + gathered_offset_bytes, gathered_bytes, host);
    return absl::OkStatus();
  }

  absl::Status Copy(uint8_t* to, const uint8_t* from, size_t bytes) {
    return cuda::ToStatus(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_),
                          "copying headers of pages");
  }

  absl::Status Grow(size_t bytes) {
    if (bytes <= capacity_bytes_) return absl::OkStatus();
    cudaFreeHost(pinned_);
    cudaFree(device_);
    pinned_ = device_ = nullptr;
    capacity_bytes_ = 0;
    const std::string what = absl::StrCat(bytes, " bytes for headers of pages");
    TURBOKV_RETURN_IF_ERROR(
        cuda::ToStatus(cudaMallocHost(reinterpret_cast<void**>(&pinned_), bytes), what));
    TURBOKV_RETURN_IF_ERROR(
        cuda::ToStatus(cudaMalloc(reinterpret_cast<void**>(&device_), bytes), what));
    capacity_bytes_ = bytes;
    return absl::OkStatus();
  }

  int gpu_ = 0;
  cudaStream_t stream_ = nullptr;
  uint8_t* pinned_ = nullptr;
  uint8_t* device_ = nullptr;
  size_t capacity_bytes_ = 0;
};

}  // namespace

absl::StatusOr<ReadDevice> MakeCudaReadDevice() {
  auto reader = std::make_shared<PageReader>();
  TURBOKV_RETURN_IF_ERROR(reader->Start());
  return ReadDevice([reader](uint8_t* host, absl::Span<const uint8_t* const> device,
                             size_t bytes_each) { return reader->Read(host, device, bytes_each); });
}

}  // namespace turbokv
