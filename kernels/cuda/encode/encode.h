// Raw K/V in GPU memory into pages in GPU memory.
//
// Writes the bytes that kernels/reference writes, header and checksum included.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda/page_pool.h"
#include "kernels/kv_view.h"

namespace turbokv::cuda {

// K and V of one layer in device memory. Without slot_mapping, value (t, h, c) is at index
// t * token_stride + h * head_stride + c as in KvView. With slot_mapping, token t lies in slot
// s = slot_mapping[t] of an engine's paged cache, at index
//   (s / block_tokens) * block_stride + (s % block_tokens) * token_stride + h * head_stride + c,
// which covers NHD [blocks][block_tokens][heads][dim] and HND [blocks][heads][block_tokens][dim].
// A page that has a token of slot < 0 is left untouched ("skip", as engines write -1).
struct DeviceKvSource {
  ValueType type = ValueType::kBf16;
  const void* k = nullptr;  // aligned to 16 bytes, as are all strides (in bytes)
  const void* v = nullptr;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
  const int64_t* slot_mapping = nullptr;  // device memory, [pages x 128] or null
  int64_t block_stride = 0;
  int block_tokens = 0;
};

struct EncodeArguments {
  PagePool pool;
  DeviceKvSource source;
  int pages = 0;                      // page i takes tokens 128 i .. 128 i + 127 of the source
  const int32_t* page_ids = nullptr;  // device memory, [pages]: where each page goes
  // Of the headers. Page i begins at position first_token + 128 i.
  uint32_t layer = 0;
  uint32_t generation = 0;
  uint64_t spec_id = 0;
  uint64_t first_token = 0;
  // Device memory, one word, or null: set to 1 + the index of a page that holds a NaN or infinity
  // (the largest such); such a page's bytes are undefined. Never cleared here.
  uint32_t* non_finite_page = nullptr;
  // Device scratch of EncodeWorkspaceBytes(pages, pool.shape) bytes, 16-byte aligned. Calls that
  // may overlap in time need workspaces of their own.
  void* workspace = nullptr;
};

size_t EncodeWorkspaceBytes(int pages, const PageShape& shape);

// Stream-ordered: enqueues kernels and returns; allocates nothing, synchronises with nothing, may
// be captured into a CUDA graph. INVALID_ARGUMENT names the field, its value and the limit.
// UNIMPLEMENTED for a head_dim or codec that has no GPU kernel.
absl::Status EncodePages(const EncodeArguments& arguments, cudaStream_t stream);

}  // namespace turbokv::cuda
