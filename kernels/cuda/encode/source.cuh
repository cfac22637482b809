// Where a page's tokens come from, and where its slices are.
#pragma once

#include "kernels/cuda/encode/params.cuh"
#include "kernels/cuda/primitives/page_format.cuh"
#include "kernels/cuda/primitives/token_slots.cuh"
#include "kernels/cuda/primitives/value_types.cuh"

namespace turbokv::cuda {

TURBOKV_DEVICE uint8_t* SliceOf(const TensorParams& params, int page, int head) {
  return params.pool + params.page_ids[page] * params.page_stride + kPageHeaderBytes +
         int64_t{head} * params.slice_bytes;
}

}  // namespace turbokv::cuda
