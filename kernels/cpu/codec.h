// Encoding and decoding of pages by SIMD (Highway, dispatched at run time) on any number of
// threads. Writes the same bytes as kernels/reference, bit for bit.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/thread_pool.h"
#include "kernels/format/page_header.h"
#include "kernels/kv_view.h"

namespace turbokv::cpu {

// As reference::EncodePage. Work is divided by KV head over `pool` (null: the calling thread).
absl::Status EncodePage(const PageLayout& layout, const PageIdentity& identity, const KvView& kv,
                        absl::Span<uint8_t> page, ThreadPool* pool = nullptr);

// As reference::DecodePage, within float rounding.
void DecodePage(const PageView& page, const KvOutput& output, ThreadPool* pool = nullptr);

}  // namespace turbokv::cpu
