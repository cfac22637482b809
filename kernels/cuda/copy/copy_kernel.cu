// Copies ranges of bytes, 16 at a time.
#include "kernels/cuda/copy/copy_kernel.h"
#include "kernels/cuda/copy/params.cuh"
#include "kernels/cuda/primitives/platform.cuh"

namespace turbokv::cuda {
namespace {

TURBOKV_DEVICE void CopyRange(const CopyDescriptor& copy) {
  const auto* from = reinterpret_cast<const Words4*>(copy.from);
  auto* to = reinterpret_cast<Words4*>(copy.to);
  const auto vectors = static_cast<int64_t>(copy.bytes / sizeof(Words4));
  constexpr int kBlockVectors = kCopyBlockBytes / static_cast<int>(sizeof(Words4));
  for (int64_t begin = int64_t{blockIdx.x} * kBlockVectors; begin < vectors;
       begin += int64_t{gridDim.x} * kBlockVectors) {
    Words4 loaded[kCopyVectorsAThread];
#pragma unroll
    for (int i = 0; i < kCopyVectorsAThread; ++i) {
      const int64_t vector = begin + i * kCopyBlockThreads + threadIdx.x;
      if (vector < vectors) loaded[i] = from[vector];
    }
#pragma unroll
    for (int i = 0; i < kCopyVectorsAThread; ++i) {
      const int64_t vector = begin + i * kCopyBlockThreads + threadIdx.x;
      if (vector < vectors) to[vector] = loaded[i];
    }
  }
}

__global__ void __launch_bounds__(kCopyBlockThreads)
    CopyKernel(const CopyDescriptor* copies, int count) {
  for (int i = static_cast<int>(blockIdx.y); i < count; i += static_cast<int>(gridDim.y)) {
    CopyRange(copies[i]);
  }
}

}  // namespace

const void* CopyKernelFunction() { return reinterpret_cast<const void*>(CopyKernel); }

}  // namespace turbokv::cuda
