// One warp's copies from global into shared memory, asynchronous: by the bulk copy engine on
// sm_90 and later, by cp.async before.
//
// A slot stands for pieces of shared memory that one warp fills and reads again and again:
//   Fetch(i) ... Wait() ... read ... __syncwarp() ... Fetch(i + 1)
#pragma once

#include "kernels/cuda/primitives/platform.cuh"
#include "kernels/cuda/primitives/ptx.cuh"

namespace turbokv::cuda {

struct FetchPiece {
  uint8_t* to;  // shared memory, 16-byte aligned
  const uint8_t* from;
  uint32_t bytes;  // a multiple of 16
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

class FetchSlot {
 public:
  // `barrier` is 8 bytes of shared memory of this slot alone. Call by all lanes, then __syncwarp().
  TURBOKV_DEVICE FetchSlot(uint64_t* barrier, int lane) : barrier_(SharedAddress(barrier)) {
    if (lane == 0) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier_) : "memory");
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
  }

  // Call by all lanes, none of which may still read what is overwritten.
  template <typename... Pieces>
  TURBOKV_DEVICE void Fetch(int lane, const Pieces&... pieces) {
    if (lane == 0) {
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier_),
                   "r"((pieces.bytes + ...))
                   : "memory");
      (Copy(pieces), ...);
    }
  }

  // Waits for the oldest fetch that was not waited for. `newer`: one fetch of the warp's other slot
  // was begun after it.
  TURBOKV_DEVICE void Wait([[maybe_unused]] bool newer) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "WAIT:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra DONE;\n"
        "bra WAIT;\n"
        "DONE:\n"
        "}" ::"r"(barrier_),
        "r"(parity_)
        : "memory");
    parity_ ^= 1;
  }

  // Shared memory of the slot is used for something else from here on. Call by all lanes.
  TURBOKV_DEVICE void Close(int lane) {
    if (lane == 0) asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(barrier_) : "memory");
  }

 private:
  TURBOKV_DEVICE void Copy(const FetchPiece& piece) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
            "r"(SharedAddress(piece.to)),
        "l"(piece.from), "r"(piece.bytes), "r"(barrier_)
        : "memory");
  }

  uint32_t barrier_;
  uint32_t parity_ = 0;
};

#else

class FetchSlot {
 public:
  TURBOKV_DEVICE FetchSlot(uint64_t* /*barrier*/, int /*lane*/) {}

  template <typename... Pieces>
  TURBOKV_DEVICE void Fetch(int lane, const Pieces&... pieces) {
    (Copy(lane, pieces), ...);
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  TURBOKV_DEVICE void Wait(bool newer) {
    if (newer) {
      asm volatile("cp.async.wait_group 1;" ::: "memory");
    } else {
      asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
    __syncwarp();
  }

  TURBOKV_DEVICE void Close(int /*lane*/) {}

 private:
  TURBOKV_DEVICE void Copy(int lane, const FetchPiece& piece) {
    const uint32_t to = SharedAddress(piece.to);
    for (uint32_t i = 16 * lane; i < piece.bytes; i += 16 * kWarpLanes) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + i), "l"(piece.from + i)
                   : "memory");
    }
  }
};

#endif

}  // namespace turbokv::cuda
