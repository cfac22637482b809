// The kernels of attention that do not depend on codecs.
#include "kernels/cuda/attention/fixed_kernels.h"
#include "kernels/cuda/attention/merge_kernel.cuh"
#include "kernels/cuda/attention/prepare_kernel.cuh"

namespace turbokv::cuda {
namespace {

template <int kHeadDim>
__global__ void __launch_bounds__(kMostPrepareTiles* kPrepareThreads, 1)
    PrepareKernel(const __grid_constant__ PrepareParams params) {
  extern __shared__ __align__(16) uint8_t shared[];
  Prepare<kHeadDim>(params, shared);
}

template <int kHeadDim, TailKind kTail>
__global__ void __launch_bounds__(MergeThreads(kHeadDim),
                                  MergeBlocks(kHeadDim, kTail != TailKind::kNone))
    MergeKernel(const __grid_constant__ MergeParams params) {
  extern __shared__ __align__(16) uint8_t shared[];
  MergeBlock<kHeadDim, kTail>(params, reinterpret_cast<float*>(shared)).Run();
}

template <int kHeadDim, TailKind kTail>
LaunchShape Merge() {
  return {reinterpret_cast<const void*>(MergeKernel<kHeadDim, kTail>), MergeThreads(kHeadDim),
          sizeof(float) * MergeBlock<kHeadDim, kTail>::kSharedFloats};
}

template <int kHeadDim>
FixedKernels Kernels() {
  FixedKernels kernels;
  kernels.prepare = {reinterpret_cast<const void*>(PrepareKernel<kHeadDim>),
                     kMostPrepareTiles * kPrepareThreads,
                     kMostPrepareTiles * sizeof(QueryBlock<kHeadDim>)};
  kernels.merge = Merge<kHeadDim, TailKind::kNone>();
  kernels.merge_bf16_tail = Merge<kHeadDim, TailKind::kBf16>();
  kernels.merge_fp16_tail = Merge<kHeadDim, TailKind::kFp16>();
  kernels.query_block_bytes = sizeof(QueryBlock<kHeadDim>);
  return kernels;
}

}  // namespace

FixedKernels FixedKernelsFor(int head_dim) {
  if (head_dim == 64) return Kernels<64>();
  return head_dim == 128 ? Kernels<128>() : Kernels<256>();
}

}  // namespace turbokv::cuda
