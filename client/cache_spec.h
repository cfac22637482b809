// Cache specs and the keys that grow from them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/format/policy.h"
#include "kernels/kv_view.h"

namespace turbokv {

inline constexpr int kFormatVersion = 1;
inline constexpr size_t kMaxSpecTextBytes = 256;  // of model id, revision, adapter and RoPE text
inline constexpr int kMaxWorldSize = 65536;
inline constexpr size_t kMaxBlockBytes = size_t{1} << 31;  // pages of 128 tokens in every layer

// 32 bytes of SHA-256.
using Digest = std::array<uint8_t, 32>;

// What makes cached bytes comparable; see CacheSpec in proto/turbokv/v1/cache.proto.
struct CacheSpec {
  std::string model_id;
  std::string model_revision;
  std::string adapter;
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  ValueType source_type = ValueType::kBf16;
  std::string rope;
  int rank = 0;
  int world_size = 1;
  std::string policy{kDefaultPolicy};
};

// A checked spec with its policy expanded: everything that follows from it.
struct ResolvedSpec {
  CacheSpec spec;
  std::vector<LayerCodecs> layer_codecs;
  std::vector<PageLayout> layer_layouts;
  PageLayout tail_layout;  // bf16 or fp16 pages, in source precision (fp32 sources: fp32 is
                           // rounded to bf16)
  Digest fingerprint;

  uint64_t spec_id() const;        // first 8 bytes of the fingerprint, little-endian
  size_t raw_token_bytes() const;  // K and V of one token of one layer
  size_t block_bytes() const;      // pages of all layers
};

// INVALID_ARGUMENT or UNIMPLEMENTED names the field, its value and the limit. Untrusted input.
absl::StatusOr<ResolvedSpec> ResolveSpec(const CacheSpec& spec);

// Keys of the full blocks of `token_ids`:
//   parent of the first = SHA-256(fingerprint || salt),
//   key = SHA-256(parent || 128 token ids, little-endian uint32).
// `salt` separates users that must not share (docs/security.md); usually empty.
std::vector<Digest> BlockKeys(const Digest& fingerprint, absl::string_view salt,
                              absl::Span<const int32_t> token_ids);

// The key of the exact tail of this very sequence:
//   SHA-256("turbokv tail" || last full block's key, or the root's parent || the ids after it).
Digest TailKey(const Digest& fingerprint, absl::string_view salt,
               absl::Span<const Digest> block_keys, absl::Span<const int32_t> token_ids);

// Blocks of a sequence that its reader attends to in compressed form; the rest is the tail of
// 128..255 tokens (all of them while there are fewer than 256).
constexpr int64_t PackedBlocks(int64_t tokens) {
  return tokens < 2 * kPageTokens ? 0 : tokens / kPageTokens - 1;
}

}  // namespace turbokv
