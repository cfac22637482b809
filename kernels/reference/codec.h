// Encoding and decoding of pages in double precision, one value at a time: the oracle.
// Every other implementation writes the same bytes.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/format/page_header.h"
#include "kernels/kv_view.h"

namespace turbokv::reference {

// Encodes kv.tokens (1..128) tokens into `page` (layout.page_bytes bytes, any contents) and seals
// it. INVALID_ARGUMENT: a NaN or infinity, with tensor, token, head and channel; tokens out of
// range.
absl::Status EncodePage(const PageLayout& layout, const PageIdentity& identity, const KvView& kv,
                        absl::Span<uint8_t> page);

// Decodes header.tokens tokens, K mean added back, rotation undone.
void DecodePage(const PageView& page, const KvOutput& output);

}  // namespace turbokv::reference
