// Fused decode attention on packed pages: Q is rotated once, scores are taken against codes, V is
// summed in the rotated domain, and one inverse rotation ends it. Nothing is ever decoded to
// memory.
#pragma once

#include "absl/status/status.h"
#include "base/thread_pool.h"
#include "kernels/attention.h"

namespace turbokv::cpu {

// Same arguments, results and errors as reference::DecodeAttention. Work is divided by KV head and
// by ranges of pages over `pool` (null: the calling thread); the result for a given pool size is
// deterministic.
absl::Status DecodeAttention(const AttentionShape& shape, const AttentionOptions& options,
                             const SequenceKv& sequence, const AttentionQueries& queries,
                             ThreadPool* pool = nullptr);

}  // namespace turbokv::cpu
