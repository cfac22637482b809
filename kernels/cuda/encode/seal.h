// Headers and checksums of pages whose slices are complete.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda/page_pool.h"

namespace turbokv::cuda {

struct PageState;  // kernels/cuda/encode/params.cuh

// Who a page is: given, or taken over from another page's header.
struct SealIdentity {
  uint32_t layer = 0;
  uint32_t generation = 0;
  uint64_t spec_id = 0;
  uint64_t first_token = 0;  // of page 0; page i begins 128 i later
  // If `headers` is not null: layer, spec, first_token and tokens are those of the page at
  // headers + header_ids[i] x header_stride_bytes, the generation is that one's plus one, and the
  // fields above are not read. Device memory.
  const uint8_t* headers = nullptr;
  int64_t header_stride_bytes = 0;
  const int32_t* header_ids = nullptr;
};

struct SealArguments {
  PagePool pool;
  const int32_t* page_ids = nullptr;  // device memory, [pages]
  int pages = 0;
  // Device memory, [pages]: exponents, and which pages to leave alone (EncodeSlices).
  const PageState* states = nullptr;
  SealIdentity identity;
};

// Stream-ordered; allocates nothing, may be captured into a CUDA graph.
absl::Status SealPages(const SealArguments& arguments, cudaStream_t stream);

}  // namespace turbokv::cuda
