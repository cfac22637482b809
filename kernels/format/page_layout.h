// Where the bytes of a page are. docs/formats/page_v1.md is the specification.
//
//   page  = header (128 bytes) | slice of KV head 0 | ... | slice of the last KV head
//   slice = K codes | K scales | K mean | V codes | V scales        each section 128-byte aligned
//
// What the scores need comes first and in one piece, then what the values need: a kernel fetches
// each half with one bulk copy.
//
// A slice is 128 tokens of one head; a page with fewer tokens has the same size, and its unused
// codes and scales are zero.
//   codes   tiles of 32 x 32 (tile.h), ordered by 32-token block, then by 32-channel group
//   scales  kHeadFp32          one float
//           kBlockFp16         fp16 [padded_dim / 32][128 tokens]
//           kGroupFp16         fp16 [groups][128 tokens]
//           kGroupStepMinFp16  fp16 [groups][2: step, minimum][128 tokens]
//   K mean  fp16 [head_dim], of K as given (not rotated); absent without K mean
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/format/codec.h"
#include "kernels/format/head_groups.h"

namespace turbokv {

inline constexpr size_t kSectionAlignmentBytes = 128;
inline constexpr size_t kPageHeaderBytes = 128;
inline constexpr int kMaxKvHeads = 1024;

struct PageShape {
  int kv_heads = 0;
  int head_dim = 0;
  Codec k_codec = Codec::kBf16;
  Codec v_codec = Codec::kBf16;
  bool k_mean = false;  // never with an unquantized K codec (bf16, fp16)

  bool operator==(const PageShape&) const = default;
};

// A byte range of a slice, relative to the slice's first byte.
struct Section {
  size_t offset_bytes = 0;
  size_t size_bytes = 0;  // without the padding to the next section
};

struct PageLayout {
  PageShape shape;
  int k_padded_dim = 0;
  int v_padded_dim = 0;
  Section k_codes, k_scales, k_mean, v_codes, v_scales;
  size_t slice_bytes = 0;
  size_t page_bytes = 0;

  size_t SliceOffset(int kv_head) const { return kPageHeaderBytes + kv_head * slice_bytes; }

  // INVALID_ARGUMENT: head_dim or kv_heads out of range, K mean with an unquantized K.
  // UNIMPLEMENTED: a codec that is only named yet.
  static absl::StatusOr<PageLayout> For(const PageShape& shape);
};

// Bytes of the codes and of the scales of one head's K or V in a page.
size_t CodeBytes(Codec codec, int head_dim);
size_t ScaleBytes(Codec codec, int head_dim);

// Stored bits per value of K and V together, headers and alignment included.
double BitsPerValue(const PageLayout& layout);

}  // namespace turbokv
