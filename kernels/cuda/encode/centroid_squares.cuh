// The sum of the squares of a token's centroids, from its codes.
#pragma once

#include "kernels/cuda/encode/codebook.cuh"

namespace turbokv::cuda {

// Squares are integers, in units of this: 128 of them fit 32 bits, whole sums are exact.
inline constexpr double kSquareUnit = 0x1p-29;

// K: the codes of one token that a lane has, eight to a word.
template <int kBits>
class CentroidSquares {
 public:
  // In kSquareUnit.
  template <int kWords>
  static TURBOKV_HOST_DEVICE uint32_t Sum(const uint32_t (&words)[kWords]) {
    static_assert(kWords == 4 || kWords == 2);
    if constexpr (kWords == 2) {  // twice the same codes: twice the sum
      return SumOf(words[0], words[1], words[0], words[1]) >> 1;
    } else {
      return SumOf(words[0], words[1], words[2], words[3]);
    }
  }

  // Of groups of 128; magnitude 0 is the innermost pair of centroids.
  static constexpr uint32_t Square(int magnitude) {
    const double square = CodebookOf(kTurboCodec<kBits>, 128).squares[kMagnitudes + magnitude];
    return static_cast<uint32_t>(square / kSquareUnit + 0.5);
  }

 private:
  static constexpr int kMagnitudes = 1 << (kBits - 1);
  static_assert(128 * 0.0584 / kSquareUnit < 4294967296.0, "of the largest centroid");

  static TURBOKV_HOST_DEVICE uint32_t Choose(uint32_t mask, uint32_t a, uint32_t b) {
    return (a & mask) | (b & ~mask);
  }

  // Bits 2 half and 2 half + 1 of all codes as two words: bit 4 j + (0, 2, 1, 3) is that of code j
  // in the words a, b, c, d.
  static TURBOKV_HOST_DEVICE void TakeBits(int half, uint32_t a, uint32_t b, uint32_t c, uint32_t d,
                                           uint32_t& even, uint32_t& odd) {
    constexpr uint32_t kPairs = 0x33333333u;
    constexpr uint32_t kSingles = 0x55555555u;
    const uint32_t ab = half == 0 ? Choose(kPairs, a, b << 2) : Choose(kPairs, a >> 2, b);
    const uint32_t cd = half == 0 ? Choose(kPairs, c, d << 2) : Choose(kPairs, c >> 2, d);
    even = Choose(kSingles, ab, cd << 1);
    odd = Choose(kSingles, ab >> 1, cd);
  }

  // How the square of a magnitude depends on its bits: the coefficient of their product over
  // `subset`, modulo 2^32.
  static constexpr uint32_t Coefficient(int subset) {
    uint32_t sum = 0;
    for (int part = 0; part < kMagnitudes; ++part) {
      if ((part & ~subset) != 0) continue;
      const bool is_odd = 0x6996 >> (subset ^ part) & 1;
      sum += is_odd ? 0u - Square(part) : Square(part);
    }
    return sum;
  }
  template <int kSubset>
  static TURBOKV_HOST_DEVICE uint32_t Term(uint32_t product) {
    constexpr uint32_t kFactor = Coefficient(kSubset);
    return CountBits(product) * kFactor;
  }

  static TURBOKV_HOST_DEVICE uint32_t SumOf(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    constexpr uint32_t kInnermost = 32u * Square(0);
    uint32_t b0, b1;
    TakeBits(0, a, b, c, d, b0, b1);
    if constexpr (kBits == 2) {
      return kInnermost + Term<1>(~(b0 ^ b1));
    } else {
      uint32_t b2, b3;
      TakeBits(1, a, b, c, d, b2, b3);
      const uint32_t upper = kBits == 4 ? b3 : b2;
      const uint32_t m0 = ~(b0 ^ upper);
      const uint32_t m1 = ~(b1 ^ upper);
      const uint32_t sum = kInnermost + Term<1>(m0) + Term<2>(m1) + Term<3>(m0 & m1);
      if constexpr (kBits == 3) {
        return sum;
      } else {
        const uint32_t m2 = ~(b2 ^ upper);
        return sum + Term<4>(m2) + Term<5>(m0 & m2) + Term<6>(m1 & m2) + Term<7>(m0 & m1 & m2);
      }
    }
  }
};

}  // namespace turbokv::cuda
