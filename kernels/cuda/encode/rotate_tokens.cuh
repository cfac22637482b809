// The rotation of 8 tokens of one head by a warp, without its last sign flip and factor. K's begins
// with sums that take the mean away.
#pragma once

#include "kernels/cuda/encode/fragments.cuh"
#include "kernels/cuda/encode/load_page.cuh"
#include "kernels/cuda/encode/sign_tables.cuh"

namespace turbokv::cuda {

// z += A (16 x 16, row) x B (16 x 8, column).
template <bool kBf16>
TURBOKV_DEVICE void Product(float (&z)[4], const Words4& a, uint32_t b0, uint32_t b1) {
#define TURBOKV_PRODUCT(TYPE)                                \
  asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE \
      ".f32 {%0, %1, %2, %3}, "                              \
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"        \
      : "+f"(z[0]), "+f"(z[1]), "+f"(z[2]), "+f"(z[3])       \
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1))
  if constexpr (kBf16) {
    TURBOKV_PRODUCT("bf16");
  } else {
    TURBOKV_PRODUCT("f16");
  }
#undef TURBOKV_PRODUCT
}

// The Hadamard matrix as an operand, and what is done with it.
template <int kChannels, bool kIsV, bool kBf16>
class TokenRotation {
 public:
  static constexpr int kBlocks = kChannels / 16;
  // Of one lane, see fragments.cuh.
  using Values = float[kBlocks][4];

  TURBOKV_DEVICE TokenRotation(const FirstFlips<kChannels>& flips, int lane)
      : flips_(flips), lane_(lane) {
    constexpr uint32_t kOne = kBf16 ? 0x3f803f80u : 0x3c003c00u;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      matrix_[r] = kIsV ? HadamardRow(kOne, r, lane) : HadamardColumn(kOne, r >> 1, r & 1, lane);
      asm("" : "+r"(matrix_[r]));  // opaque: the compiler would compute it anew in every step
    }
  }

  // Step `step` of four of the 32 tokens from 32 slab on.
  // `sums`: those of GroupMean (K).
  TURBOKV_DEVICE void Run(const GroupValues<kChannels>& group, int slab, int step,
                          const float* sums, Values& y) const {
    const uint32_t* row = &group.words[32 * slab + TokenRead(step, lane_ >> 2)][2 * (lane_ & 3)];
    MultiplyBlocks(row, sums, y);
    TransformBlocks<kBlocks>(y);
  }

 private:
  // A lane's four values of a block, flipped.
  TURBOKV_DEVICE Words2 Read(const uint32_t* row, int block) const {
    const Words2 flips = flips_.pairs[block][lane_ & 3];
    const auto words = *reinterpret_cast<const Words2*>(row + 8 * block);
    return {words.x ^ flips.x, words.y ^ flips.y};
  }

  TURBOKV_DEVICE void MultiplyBlocks(const uint32_t* row, const float* sums, Values& y) const {
    if constexpr (kIsV) {
      const Words4 a{matrix_[0], matrix_[1], matrix_[2], matrix_[3]};
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        const Words2 x = Read(row, block);
        for (float& value : y[block]) value = 0.0f;
        Product<kBf16>(y[block], a, x.x, x.y);
      }
    } else {
#pragma unroll
      for (int block = 0; block < kBlocks / 2; ++block) {
        const Words2 x0 = Read(row, block);
        const Words2 x1 = Read(row, block + kBlocks / 2);
        const Words4 a{x0.x, x1.x, x0.y, x1.y};
#pragma unroll
        for (int q = 0; q < 2; ++q) {
          const auto first =
              *reinterpret_cast<const float4*>(&sums[FirstSums(block, q, lane_ & 3)]);
          float z[4] = {first.x, first.y, first.z, first.w};
          Product<kBf16>(z, a, matrix_[2 * q], matrix_[2 * q + 1]);
          y[block][2 * q] = z[0];
          y[block][2 * q + 1] = z[1];
          y[block + kBlocks / 2][2 * q] = z[2];
          y[block + kBlocks / 2][2 * q + 1] = z[3];
        }
      }
    }
  }

  const FirstFlips<kChannels>& flips_;  // shared memory
  const int lane_;
  uint32_t matrix_[4];
};

}  // namespace turbokv::cuda
