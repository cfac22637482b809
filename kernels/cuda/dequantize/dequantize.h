// Pages in GPU memory back into K/V in an engine's layout, and from one codec to another.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda/page_pool.h"
#include "kernels/kv_view.h"

namespace turbokv::cuda {

// Where values go: indexing as DeviceKvSource (kernels/cuda/encode/encode.h), slots included; a
// token of slot < 0 is skipped.
struct DeviceKvSink {
  ValueType type = ValueType::kBf16;
  void* k = nullptr;  // null: K is not wanted; aligned to 16 bytes, as are all strides (in bytes)
  void* v = nullptr;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
  const int64_t* slot_mapping = nullptr;
  int64_t block_stride = 0;
  int block_tokens = 0;
};

struct DequantizeArguments {
  PagePool pool;
  const int32_t* page_ids = nullptr;  // device memory, [pages]
  int pages = 0;                      // page i gives tokens 128 i .. 128 i + 127
  DeviceKvSink sink;
};

// Values are the reference's (K mean added back, rotation undone), computed in float: within 2^-20
// of the norm of the token's vector, or of the head's K mean if that is larger. bf16 and fp16 are
// those rounded to nearest even, a value beyond the type's range becoming its largest finite
// number. Tokens that a page does not have are not written. Stream-ordered, nothing allocated, may
// be captured. INVALID_ARGUMENT names the field, its value and the limit.
absl::Status DequantizePages(const DequantizeArguments& arguments, cudaStream_t stream);

struct RecodeArguments {
  PagePool from;
  PagePool to;                             // same kv_heads and head_dim
  const int32_t* from_page_ids = nullptr;  // device memory, [pages]
  const int32_t* to_page_ids = nullptr;    // device memory, [pages]
  // No page that is written may overlap one that is read, but for a page that is recoded where it
  // is: the same address in both pools.
  int pages = 0;
  // Device scratch of RecodeWorkspaceBytes(...) bytes, 16-byte aligned.
  void* workspace = nullptr;
};

size_t RecodeWorkspaceBytes(int pages, const PageShape& to);

// Decodes as the reference does, in double, then encodes: the bytes of
// reference::EncodePage(reference::DecodePage(page)) with the page's own layer, spec and
// first_token, and its generation plus one. Pages must be full (128 tokens): of others the tokens
// that are not there would enter means and scales. Stream-ordered, nothing allocated, may be
// captured. INVALID_ARGUMENT names the field, its value and the limit.
absl::Status RecodePages(const RecodeArguments& arguments, cudaStream_t stream);

}  // namespace turbokv::cuda
