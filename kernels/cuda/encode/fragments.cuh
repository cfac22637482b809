// Which values a lane holds while tensor cores do the first four of the rotation's stages.
//
// Channels of a group are 16 J + chan: the tensor cores transform over chan, the float stages over
// J. Lane 4 g + t reads, of a token, channels 16 J + 4 t .. + 3 (8 bytes); as k indices of
// `mma.m16n8k16` they are 2t, 2t+1, 2t+8, 2t+9. 32 tokens are done in four steps of 8: few values
// are live at once, and the code of a step is small enough for the instruction cache.
//   K: A = values, B = the 16 x 16 Hadamard matrix in two n-tiles q. Row g is the token's block J,
//      row g + 8 its block J + blocks / 2. The accumulators (q, c) are channel 16 J + 4 t + i of
//      the block of row c >> 1, i = 2 q + (c & 1).
//   V: A = the matrix, B = values (columns are tokens). Accumulator c is channel
//      16 J + 8 (c >> 1) + g of token c & 1 of the step's tokens of lane t.
// So a lane ends up with just the codes that it owns in tiles (kernels/format/tile.h): y[J][i] is
// channel 16 J + 4 t + i (K), or channel 16 J + 8 (i >> 1) + g of token i & 1 (V).
#pragma once

#include "kernels/cuda/primitives/host_device.cuh"

namespace turbokv::cuda {

// The token (0..31) whose values lane group g = lane / 4 reads in step `step`.
TURBOKV_HOST_DEVICE int TokenRead(int step, int g) {
  return 16 * (step >> 1) + 4 * (g >> 1) + 2 * (step & 1) + (g & 1);
}

// Two bf16 or fp16 numbers +-1 with the signs of the Hadamard matrix's entries (row, channel) and
// (row, channel + 1). one: the bits of 1 in both halves.
TURBOKV_HOST_DEVICE uint32_t HadamardPair(uint32_t one, int row, int channel) {
  const auto odd = [](int bits) { return (0x6996u >> (bits & 15)) & 1u; };
  return one ^ odd(row & channel) << 15 ^ odd(row & (channel + 1)) << 31;
}

// K's B operand: register r (k = 2t.. or 2t+8..) of n-tile q.
TURBOKV_HOST_DEVICE uint32_t HadamardColumn(uint32_t one, int q, int r, int lane) {
  const int g = lane >> 2;
  return HadamardPair(one, 4 * (g >> 1) + 2 * q + (g & 1), 4 * (lane & 3) + 2 * r);
}

// V's A operand: register r = 2 (k half) + (row half).
TURBOKV_HOST_DEVICE uint32_t HadamardRow(uint32_t one, int r, int lane) {
  return HadamardPair(one, (lane >> 2) + 8 * (r & 1), 4 * (lane & 3) + 2 * (r >> 1));
}

// K: where the accumulators begin that lane t has in the product of blocks `block` and
// `block` + blocks / 2 with n-tile q, among all channels' sums: four in a row.
TURBOKV_HOST_DEVICE int FirstSums(int block, int q, int t) { return 32 * block + 8 * t + 4 * q; }
// And where a channel's sum is.
template <int kChannels>
TURBOKV_HOST_DEVICE int PlaceOfSum(int channel) {
  constexpr int kHalf = kChannels / 32;
  const int block = channel / 16;
  const int i = channel & 3;
  return FirstSums(block % kHalf, i >> 1, channel >> 2 & 3) + 2 * (block / kHalf) + (i & 1);
}

// The sign bits that s1 flips in the two values from `channel` (even) on.
TURBOKV_HOST_DEVICE constexpr uint32_t FlipPair(uint32_t sign_word, int channel) {
  const uint32_t bits = sign_word >> (channel & 31);
  return (bits & 1) << 15 | (bits & 2) << 30;
}

// The stages over J, unnormalised.
template <int kBlocks>
TURBOKV_HOST_DEVICE void TransformBlocks(float (&y)[kBlocks][4]) {
  TURBOKV_UNROLL
  for (int stride = 1; stride < kBlocks; stride *= 2) {
    TURBOKV_UNROLL
    for (int block = 0; block < kBlocks; ++block) {
      if (block & stride) continue;
      TURBOKV_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float a = y[block][i];
        const float b = y[block + stride][i];
        y[block][i] = a + b;
        y[block + stride][i] = a - b;
      }
    }
  }
}

}  // namespace turbokv::cuda
