// Decode attention over decoded pages and the tail, in double precision: the oracle.
#pragma once

#include "absl/status/status.h"
#include "kernels/attention.h"

namespace turbokv::reference {

// INVALID_ARGUMENT: shapes that disagree, more than kMaxQueries queries, a page of another shape.
absl::Status DecodeAttention(const AttentionShape& shape, const AttentionOptions& options,
                             const SequenceKv& sequence, const AttentionQueries& queries);

}  // namespace turbokv::reference
