// A group of one head of a page, 128 tokens of 2-byte values, into shared memory.
#pragma once

#include "kernels/cuda/encode/source.cuh"
#include "kernels/cuda/primitives/ptx.cuh"

namespace turbokv::cuda {

inline constexpr int kEncodeThreads = 128;  // four warps of 32 tokens each
static_assert(kEncodeThreads == kPageTokens);

// Rows are padded so that 8-byte reads of eight tokens meet in no bank.
template <int kChannels>
struct GroupValues {
  static constexpr int kPaddingWords = 8;
  static constexpr int kRowWords = kChannels / 2 + kPaddingWords;
  alignas(16) uint32_t words[kPageTokens][kRowWords];  // two channels each
};

// kChannels doubles in the padding of the 32 rows of a warp: like ScratchRows (exact_group.cuh).
template <int kChannels>
struct PaddingRows {
  using Values = GroupValues<kChannels>;
  static_assert(Values::kPaddingWords == 2 * 4 && kChannels <= 4 * 32);
  uint32_t* first;  // the padding of the first row

  TURBOKV_DEVICE double& At(int row, int column) const {
    uint32_t* padding = first + (2 * row + column / 4) * Values::kRowWords;
    return *reinterpret_cast<double*>(padding + 2 * (column % 4));
  }
};

// Copies 16 bytes that are read once: they leave the L2 cache first, before encoded pages.
TURBOKV_DEVICE void CopyAsync16(void* shared, const void* global, uint64_t policy) {
  asm volatile(
      "cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)),
      "l"(global), "l"(policy)
      : "memory");
}
// Copies 16 bytes that others read, too.
TURBOKV_DEVICE void CopyAsync16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(SharedAddress(shared)), "l"(global)
               : "memory");
}
TURBOKV_DEVICE uint64_t EvictFirstPolicy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
TURBOKV_DEVICE void WaitForCopies() {
  asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory");
}

// Of `head`, from channel `begin` on. False (for every thread) if a token has no slot. `offsets` is
// shared scratch. The values are there after WaitForCopies and a barrier.
template <int kChannels>
TURBOKV_DEVICE bool StartToLoadGroup(const TensorParams& params, int page, int head, int begin,
                                     int64_t (&offsets)[kPageTokens],
                                     GroupValues<kChannels>& values) {
  constexpr int kRowChunks = kChannels * 2 / 16;
  constexpr int kRowsAtOnce = kEncodeThreads / kRowChunks;
  const int chunk = threadIdx.x % kRowChunks;
  const int first_row = threadIdx.x / kRowChunks;
  const uint8_t* source = params.values + head * params.head_stride + begin * 2 + chunk * 16;
  uint32_t* target = &values.words[first_row][chunk * 4];
  const uint64_t policy = EvictFirstPolicy();
  const auto copy = [&](int i, const uint8_t* from) {
    CopyAsync16(target + i * kRowsAtOnce * GroupValues<kChannels>::kRowWords, from, policy);
  };
  constexpr int kCopies = kPageTokens / kRowsAtOnce;
  if (params.slots == nullptr) {
    source += (int64_t{page} * kPageTokens + first_row) * params.token_stride;
    const int64_t stride = kRowsAtOnce * params.token_stride;
#pragma unroll
    for (int i = 0; i < kCopies; ++i, source += stride) copy(i, source);
    return true;
  }
  const int64_t offset = TokenOffset(params, page, threadIdx.x);
  offsets[threadIdx.x] = offset;
  if (__syncthreads_or(offset < 0)) return false;
    // Wholly unrolled: of a loop, ptxas 13.0 makes copies whose cache policy lies in an odd uniform
    // register, an illegal instruction.
#pragma unroll
  for (int i = 0; i < kCopies; ++i) copy(i, source + offsets[first_row + i * kRowsAtOnce]);
  return true;
}

// Half `high` of a word of two values.
TURBOKV_DEVICE float HalfOf(uint32_t word, bool high, bool is_bf16) {
  if (is_bf16) return high ? HighBf16(word) : LowBf16(word);
  return high ? HighHalf(word) : LowHalf(word);
}

}  // namespace turbokv::cuda
