// How often each centroid was chosen, by token: what the sum of their squares is made of. For V,
// whose tokens share words.
#pragma once

#include "kernels/cuda/encode/codebook.cuh"

namespace turbokv::cuda {

// Magnitudes of codes: 0 is the innermost pair of centroids. All but that one are counted.
template <int kBits>
class CentroidCounts {
 public:
  static constexpr int kCounted = (1 << (kBits - 1)) - 1;
  // Byte i of word [h][k] is how often magnitude k + 1 occurred in token 4 h + i. Lanes that share
  // tokens may add theirs.
  using Words = uint32_t[2][kCounted];

  // Of a lane's codes: nibble 4 h + i of every word.
  template <int kBlocks>
  static TURBOKV_HOST_DEVICE void Count(const uint32_t (&codes)[kBlocks][4], Words& words) {
    TURBOKV_UNROLL
    for (int h = 0; h < 2; ++h) {
      TURBOKV_UNROLL
      for (int k = 0; k < kCounted; ++k) words[h][k] = 0;
    }
    TURBOKV_UNROLL
    for (int block = 0; block < kBlocks; block += 2)
      AddEight(codes[block], codes[block + 1], words);
  }

  // The sum of squares for byte `i` of words that all sharers have added up.
  static TURBOKV_HOST_DEVICE float SumOfSquares(const uint32_t (&words)[kCounted], int i,
                                                int channels) {
    float sum = Square(0) * static_cast<float>(channels);
    TURBOKV_UNROLL
    for (int k = 0; k < kCounted; ++k) {
      const auto count = static_cast<float>(words[k] >> (8 * i) & 0xff);
      sum = MultiplyAdd(count, Square(k + 1) - Square(0), sum);
    }
    return sum;
  }

 private:
  static constexpr int kPairs = (kCounted + 1) / 2;

  // Two counts share a byte: eight words fit.
  static TURBOKV_HOST_DEVICE void AddEight(const uint32_t (&first)[4], const uint32_t (&second)[4],
                                           Words& words) {
    uint32_t pairs[2][kPairs] = {};
    TURBOKV_UNROLL
    for (int n = 0; n < 4; ++n) {
      AddWord(first[n], pairs);
      AddWord(second[n], pairs);
    }
    TURBOKV_UNROLL
    for (int h = 0; h < 2; ++h) {
      TURBOKV_UNROLL
      for (int k = 0; k < kCounted; ++k) {
        words[h][k] += pairs[h][k / 2] >> (4 * (k % 2)) & 0x0f0f0f0fu;
      }
    }
  }

  static TURBOKV_HOST_DEVICE void AddWord(uint32_t codes, uint32_t (&pairs)[2][kPairs]) {
    uint32_t index = codes;
    if constexpr (kBits == 4) {
      const uint32_t lower = ~codes & 0x88888888u;  // codes 0..7 mirror 15..8
      index = (codes ^ (lower - (lower >> 3))) & 0x77777777u;
    }
    TURBOKV_UNROLL
    for (int pair = 0; pair < kPairs; ++pair) {
      pairs[0][pair] += SelectBytes(Increments(pair, 0), Increments(pair, 4), index);
      pairs[1][pair] += SelectBytes(Increments(pair, 0), Increments(pair, 4), index >> 16);
    }
  }

  // Of groups of 128.
  static constexpr float Square(int magnitude) {
    return static_cast<float>(
        CodebookOf(kTurboCodec<kBits>, 128).squares[kCounted + 1 + magnitude]);
  }
  // Byte i: what code (4 bits: magnitude) begin + i adds to a pair of counts, 4 bits each.
  static constexpr uint32_t IncrementsOf(int pair, int begin) {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) {
      const int index = begin + i;
      const int upper = kCounted + 1;  // the first code above zero
      const int magnitude = kBits == 4 ? index : index >= upper ? index - upper : upper - 1 - index;
      if (magnitude == 2 * pair + 1) word |= uint32_t{1} << (8 * i);
      if (magnitude == 2 * pair + 2) word |= uint32_t{16} << (8 * i);
    }
    return word;
  }
  static TURBOKV_HOST_DEVICE uint32_t Increments(int pair, int begin) {
    constexpr uint32_t kWords[4][2] = {{IncrementsOf(0, 0), IncrementsOf(0, 4)},
                                       {IncrementsOf(1, 0), IncrementsOf(1, 4)},
                                       {IncrementsOf(2, 0), IncrementsOf(2, 4)},
                                       {IncrementsOf(3, 0), IncrementsOf(3, 4)}};
    return kWords[pair][begin / 4];
  }
};

}  // namespace turbokv::cuda
