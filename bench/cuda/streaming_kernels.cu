#include "bench/cuda/streaming_kernels.h"
#include "kernels/cuda/primitives/platform.cuh"

namespace turbokv::bench {
namespace {

using cuda::Words4;

template <bool kPrefetch256>
TURBOKV_DEVICE Words4 LoadOnce(const Words4* from) {
  Words4 r;
  if constexpr (kPrefetch256) {
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
                 : "l"(from));
  } else {
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
                 : "l"(from));
  }
  return r;
}

// Calls body(index of this thread's first 16 bytes) for every step of this block.
template <int kUnroll, typename Body>
TURBOKV_DEVICE void ForEachStep(int64_t bytes, const Body& body) {
  const int64_t step = int64_t{kUnroll} * blockDim.x;
  for (int64_t i = blockIdx.x * step; i < bytes / 16; i += gridDim.x * step) body(i + threadIdx.x);
}

template <int kUnroll, bool kPrefetch256>
__global__ void __launch_bounds__(kMaxThreads) Read(StreamingArguments arguments) {
  const Words4* from = reinterpret_cast<const Words4*>(arguments.from);
  uint32_t sum = 0;
  ForEachStep<kUnroll>(arguments.bytes, [&](int64_t i) {
    Words4 words[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) words[u] = LoadOnce<kPrefetch256>(from + i + u * blockDim.x);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) sum ^= words[u].x ^ words[u].y ^ words[u].z ^ words[u].w;
  });
  if (sum == arguments.never) *arguments.sink = sum;
}

template <int kUnroll>
__global__ void __launch_bounds__(kMaxThreads) Copy(StreamingArguments arguments) {
  const Words4* from = reinterpret_cast<const Words4*>(arguments.from);
  Words4* to = reinterpret_cast<Words4*>(arguments.to);
  ForEachStep<kUnroll>(arguments.bytes, [&](int64_t i) {
    Words4 words[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) words[u] = LoadOnce<false>(from + i + u * blockDim.x);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) to[i + u * blockDim.x] = words[u];
  });
}

__global__ void Fill(StreamingArguments arguments) {
  Words4* to = reinterpret_cast<Words4*>(arguments.to);
  ForEachStep<1>(arguments.bytes, [&](int64_t i) {
    const uint32_t x = static_cast<uint32_t>(i) * 2654435761u;
    to[i] = {x, x ^ (x >> 15), x * 2246822519u, x + (x >> 13)};
  });
}

#if __CUDA_ARCH__ >= 900

// A ring of chunks in shared memory, filled by the bulk copy engine on behalf of one thread.
class BulkRing {
 public:
  TURBOKV_DEVICE explicit BulkRing(const StreamingArguments& arguments) : arguments_(arguments) {
    extern __shared__ __align__(128) uint8_t shared[];
    barriers_ = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    chunks_ = barriers_ + 8 * kMaxStages;
    for (int stage = 0; stage < arguments.stages; ++stage) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barriers_ + 8 * stage)
                   : "memory");
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }

  TURBOKV_DEVICE uint32_t Chunk(int stage) const {
    return chunks_ + stage * arguments_.chunk_bytes;
  }

  // Chunk `index` of the block, if there is one, into `stage`.
  TURBOKV_DEVICE void Fetch(int64_t index, int stage) {
    const int64_t offset = Offset(index);
    if (offset >= arguments_.bytes) return;
    const uint32_t barrier = barriers_ + 8 * stage;
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
                 "r"(arguments_.chunk_bytes)
                 : "memory");
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
            "r"(Chunk(stage)),
        "l"(arguments_.from + offset), "r"(arguments_.chunk_bytes), "r"(barrier)
        : "memory");
  }

  TURBOKV_DEVICE void Wait(int stage, uint32_t parity) {
    uint32_t done = 0;
    while (done == 0) {
      asm volatile(
          "{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;"
          " selp.u32 %0, 1, 0, p;}"
          : "=r"(done)
          : "r"(barriers_ + 8 * stage), "r"(parity)
          : "memory");
    }
  }

  // Of this block's chunk `index` in memory.
  TURBOKV_DEVICE int64_t Offset(int64_t index) const {
    return (blockIdx.x + index * gridDim.x) * int64_t{arguments_.chunk_bytes};
  }

 private:
  const StreamingArguments& arguments_;
  uint32_t barriers_;
  uint32_t chunks_;
};

#endif

__global__ void BulkRead(const __grid_constant__ StreamingArguments arguments) {
#if __CUDA_ARCH__ >= 900
  if (threadIdx.x != 0) return;
  BulkRing ring(arguments);
  for (int stage = 0; stage < arguments.stages; ++stage) ring.Fetch(stage, stage);
  uint32_t sum = 0;
  uint32_t parity = 0;
  int stage = 0;
  for (int64_t i = 0; ring.Offset(i) < arguments.bytes; ++i) {
    ring.Wait(stage, parity);
    uint32_t word;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(ring.Chunk(stage)) : "memory");
    sum ^= word;
    ring.Fetch(i + arguments.stages, stage);
    if (++stage == arguments.stages) {
      stage = 0;
      parity ^= 1;
    }
  }
  if (sum == arguments.never) *arguments.sink = sum;
#endif
}

__global__ void BulkCopy(const __grid_constant__ StreamingArguments arguments) {
#if __CUDA_ARCH__ >= 900
  if (threadIdx.x != 0) return;
  BulkRing ring(arguments);
  for (int stage = 0; stage < arguments.stages; ++stage) ring.Fetch(stage, stage);
  uint32_t parity = 0;
  int stage = 0;
  for (int64_t i = 0; ring.Offset(i) < arguments.bytes; ++i) {
    ring.Wait(stage, parity);
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(
                     arguments.to + ring.Offset(i)),
                 "r"(ring.Chunk(stage)), "r"(arguments.chunk_bytes)
                 : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
    // The store before this one has left shared memory: its place can be filled again.
    asm volatile("cp.async.bulk.wait_group.read 1;" ::: "memory");
    if (i > 0) {
      ring.Fetch(i - 1 + arguments.stages, stage == 0 ? arguments.stages - 1 : stage - 1);
    }
    if (++stage == arguments.stages) {
      stage = 0;
      parity ^= 1;
    }
  }
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
#endif
}

template <bool kPrefetch256>
const void* ReadKernelOf(int unroll) {
  switch (unroll) {
    case 4:
      return reinterpret_cast<const void*>(&Read<4, kPrefetch256>);
    case 8:
      return reinterpret_cast<const void*>(&Read<8, kPrefetch256>);
    default:
      return reinterpret_cast<const void*>(&Read<16, kPrefetch256>);
  }
}

}  // namespace

const void* ReadKernel(int unroll, bool prefetch_256_bytes) {
  return prefetch_256_bytes ? ReadKernelOf<true>(unroll) : ReadKernelOf<false>(unroll);
}

const void* CopyKernel(int unroll) {
  switch (unroll) {
    case 4:
      return reinterpret_cast<const void*>(&Copy<4>);
    case 8:
      return reinterpret_cast<const void*>(&Copy<8>);
    default:
      return reinterpret_cast<const void*>(&Copy<16>);
  }
}

const void* BulkReadKernel() { return reinterpret_cast<const void*>(&BulkRead); }
const void* BulkCopyKernel() { return reinterpret_cast<const void*>(&BulkCopy); }
const void* FillKernel() { return reinterpret_cast<const void*>(&Fill); }

}  // namespace turbokv::bench
