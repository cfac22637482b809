// Computes a page's checksum and compares its header. A block verifies a page.
#include "kernels/cuda/encode/page_crc.cuh"
#include "kernels/cuda/verify/params.cuh"
#include "kernels/cuda/verify/verify_kernel.h"

namespace turbokv::cuda {
namespace {

static_assert(kVerifyBlockThreads == kCrcBlockThreads);

__global__ void __launch_bounds__(kVerifyBlockThreads)
    VerifyKernel(const __grid_constant__ VerifyParams params) {
  const int index = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  __shared__ CrcRowShift table;
  __shared__ uint32_t header[kHeaderWords];
  __shared__ uint32_t crcs[kCrcWarps];
  LoadRowShift(table);
  const uint8_t* page = params.pool + params.page_ids[index] * params.page_stride;
  bool is_good = true;
  uint32_t stored = 0;  // the checksum, in its thread
  if (thread < kHeaderWords) {
    uint32_t word = reinterpret_cast<const uint32_t*>(page)[thread];
    is_good = IsExpected(params.header, thread, word);
    if (thread == kChecksumWord) {
      stored = word;
      word = 0;
    }
    // CRCs begin with ones: the first word counts inverted.
    header[thread] = word ^ (thread == 0 ? ~0u : 0);
  }
  __syncthreads();
  const uint32_t crc = CrcOfWarp(params.crc, page, header, table);
  if (thread % kWarpLanes == 0) crcs[thread / kWarpLanes] = crc;
  __syncthreads();
  if (thread == kChecksumWord && CrcOfWarps(crcs) != stored) is_good = false;
  if (__syncthreads_and(is_good)) return;
  if (thread == 0) atomicMax(params.bad_page, static_cast<uint32_t>(index) + 1);
}

}  // namespace

const void* VerifyKernelFunction() { return reinterpret_cast<const void*>(VerifyKernel); }

}  // namespace turbokv::cuda
