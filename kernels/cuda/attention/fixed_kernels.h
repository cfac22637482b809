// The kernels of attention that do not depend on codecs, as the launcher sees them.
#pragma once

#include <cstddef>

namespace turbokv::cuda {

struct LaunchShape {
  const void* function = nullptr;
  int threads = 0;
  size_t shared_bytes = 0;
};

struct FixedKernels {
  LaunchShape prepare;  // for kMostPrepareTiles query blocks
  LaunchShape merge;    // without a tail
  LaunchShape merge_bf16_tail;
  LaunchShape merge_fp16_tail;
  size_t query_block_bytes = 0;  // of eight rows
};

// head_dim: 64, 128 or 256.
FixedKernels FixedKernelsFor(int head_dim);

}  // namespace turbokv::cuda
