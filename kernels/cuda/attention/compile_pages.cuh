// Compiles the pages kernels of one pair of codecs for every shape; included by .cu files only.
#pragma once

#include "kernels/cuda/attention/compiled_pages.h"
#include "kernels/cuda/attention/pages_kernel.cuh"

#define TURBOKV_COMPILE_PAGES(NAME, K, V)                                             \
  namespace turbokv::cuda {                                                           \
  namespace {                                                                         \
  TURBOKV_DEFINE_PAGES_KERNEL(Pages64x1, Codec::K, Codec::V, 64, 1)                   \
  TURBOKV_DEFINE_PAGES_KERNEL(Pages64x2, Codec::K, Codec::V, 64, 2)                   \
  TURBOKV_DEFINE_PAGES_KERNEL(Pages128x1, Codec::K, Codec::V, 128, 1)                 \
  TURBOKV_DEFINE_PAGES_KERNEL(Pages128x2, Codec::K, Codec::V, 128, 2)                 \
  TURBOKV_DEFINE_PAGES_KERNEL(Pages256x1, Codec::K, Codec::V, 256, 1)                 \
  }                                                                                   \
  std::vector<CompiledPages> NAME() {                                                 \
    return {{Codec::K, Codec::V, 64, 1, reinterpret_cast<const void*>(Pages64x1)},    \
            {Codec::K, Codec::V, 64, 2, reinterpret_cast<const void*>(Pages64x2)},    \
            {Codec::K, Codec::V, 128, 1, reinterpret_cast<const void*>(Pages128x1)},  \
            {Codec::K, Codec::V, 128, 2, reinterpret_cast<const void*>(Pages128x2)},  \
            {Codec::K, Codec::V, 256, 1, reinterpret_cast<const void*>(Pages256x1)}}; \
  }                                                                                   \
  }
