// What the launchers of this folder share.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/cuda/dequantize/params.cuh"
#include "kernels/cuda/page_pool.h"

namespace turbokv::cuda {

// Of the pool's K or V.
PageSource PageSourceOf(const PagePool& pool, const PageLayout& layout, const int32_t* page_ids,
                        bool is_v);

// INVALID_ARGUMENT names `field`.
absl::Status CheckAligned(absl::string_view field, const void* pointer);
absl::Status CheckPages(int pages, int64_t max_pages);
absl::Status CheckNotNull(absl::string_view field, const void* pointer);

}  // namespace turbokv::cuda
