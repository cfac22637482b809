// A decode worker's copy of one running sequence: packed pages and the exact tail of every layer.
//
// It appends new tokens to the tail, encodes the oldest tail page itself once the page after it is
// full, and attends over both by the fused kernel.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/thread_pool.h"
#include "client/cache_spec.h"
#include "client/decode_reader.h"
#include "kernels/attention.h"

namespace turbokv {

// Used by one thread at a time.
class SequenceCache {
 public:
  // `pool` (may be null) runs encoding and attention; it outlives the cache.
  SequenceCache(std::shared_ptr<const ResolvedSpec> spec, ThreadPool* pool);
  ~SequenceCache();

  // Adopts a fetched layer. With tail pages, the tail's tokens leave the packed pages that cover
  // the same positions out (the sequence's last full page is in its tail). Layers in any order,
  // once each, before the first Append to that layer.
  absl::Status AdoptLayer(FetchedLayer layer);

  // Appends kv.tokens tokens (of spec.source_type, or fp32, rounded to the tail's type) to a layer,
  // and encodes tail pages that fall out of the tail of 128..255 tokens.
  absl::Status Append(int layer, const KvView& kv);

  // Attention of queries at `positions` over everything the layer holds.
  absl::Status Attend(int layer, int q_heads, const AttentionOptions& options,
                      const AttentionQueries& queries) const;

  int64_t tokens(int layer) const;  // packed and tail together
  int64_t packed_blocks(int layer) const;
  int tail_tokens(int layer) const;
  // Page of a packed block, e.g. to store it back (PrefillWriter::WritePage).
  absl::Span<const uint8_t> page(int layer, int64_t block) const;
  int64_t packed_bytes() const;  // of all layers, headers included

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace turbokv
