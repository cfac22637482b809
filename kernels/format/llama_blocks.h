// Lossless conversion between pages and the public llama.cpp blocks turbo2, turbo3, turbo4.
//
//   turbo2  34 bytes / 128 values: fp16 norm, qs[32]   2 bits a code, four a byte, LSB first
//   turbo3  50 bytes / 128 values: fp16 norm, qs[32]   low two bits as above, signs[16] high bit
//   turbo4  66 bytes / 128 values: fp16 norm, qs[64]   low nibble first
//
// Only for head_dim a multiple of 128 and pages without K mean: those formats have no place for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/format/page_header.h"
#include "kernels/format/tensor_sections.h"

namespace turbokv {

// Bytes of one block of 128 values. INVALID_ARGUMENT unless turbo2, turbo3 or turbo4.
absl::StatusOr<size_t> LlamaBlockBytes(Codec codec);

// Writes the blocks of one KV head: [header.tokens][head_dim / 128] blocks, token-major.
// INVALID_ARGUMENT: codec, head_dim, K mean, kv_head, the size of `blocks`, or a scale that leaves
// the range of fp16 once the page's exponent is applied.
absl::Status PageToLlamaBlocks(const PageView& page, PageTensor tensor, int kv_head,
                               absl::Span<uint8_t> blocks);

// The reverse, into the slice of a page under construction (SealPage it afterwards). `slice` holds
// layout.slice_bytes bytes whose sections of this tensor are zero. The page's exponent is 0.
absl::Status LlamaBlocksToSlice(const PageLayout& layout, PageTensor tensor, int tokens,
                                absl::Span<const uint8_t> blocks, absl::Span<uint8_t> slice);

}  // namespace turbokv
