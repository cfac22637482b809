// Whether sealed pages in GPU memory are what they should be.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda/page_pool.h"

namespace turbokv::cuda {

struct VerifyArguments {
  PagePool pool;                      // pages of its shape are expected
  const int32_t* page_ids = nullptr;  // device memory, [pages]
  int pages = 0;
  // Device memory, one word: set to 1 + the largest index of a page that is damaged: whose header
  // begins otherwise than that of a page of this shape, or whose checksum is wrong. Never cleared
  // here.
  uint32_t* bad_page = nullptr;
};

// Reads as many bytes as the shape says, whatever a header says. Stream-ordered; allocates nothing,
// may be captured into a CUDA graph. INVALID_ARGUMENT names the field, its value and the limit.
absl::Status VerifyPages(const VerifyArguments& arguments, cudaStream_t stream);

}  // namespace turbokv::cuda
