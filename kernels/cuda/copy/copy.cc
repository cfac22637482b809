#include "kernels/cuda/copy/copy.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/copy/copy_kernel.h"
#include "kernels/cuda/status.h"

namespace turbokv::cuda {
namespace {

constexpr int kMaxGridY = 65535;
// Enough to fill a GPU with one copy; with many, most of a copy's blocks would have nothing to do.
constexpr size_t kMaxBlocksACopy = 256;
constexpr size_t kMaxBlocks = 4096;

}  // namespace

absl::Status CopyPages(const CopyArguments& arguments, cudaStream_t stream) {
  if (arguments.count < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("count is ", arguments.count, "; it must not be negative"));
  }
  if (arguments.count == 0 || arguments.largest_bytes == 0) return absl::OkStatus();
  if (arguments.copies == nullptr) return absl::InvalidArgumentError("copies is null");
  const auto copies = static_cast<unsigned>(std::min(arguments.count, kMaxGridY));
  const size_t wanted_blocks = (arguments.largest_bytes - 1) / kCopyBlockBytes + 1;
  const auto blocks_a_copy = static_cast<unsigned>(std::clamp<size_t>(
      wanted_blocks, 1, std::clamp<size_t>(kMaxBlocks / copies, 1, kMaxBlocksACopy)));
  const CopyDescriptor* descriptors = arguments.copies;
  int count = arguments.count;
  void* kernel_arguments[] = {&descriptors, &count};
  return ToStatus(cudaLaunchKernel(CopyKernelFunction(), dim3(blocks_a_copy, copies),
                                   dim3(kCopyBlockThreads), kernel_arguments, 0, stream),
                  "copying pages");
}

}  // namespace turbokv::cuda
