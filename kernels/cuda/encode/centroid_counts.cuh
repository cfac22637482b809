// How often each centroid was chosen, by token: what the sum of their squares is made of.
#pragma once

#include "kernels/cuda/encode/codebook.cuh"
#include "kernels/cuda/encode/lane_tokens.cuh"

namespace turbokv::cuda {

// Magnitudes of codes: 0 is the innermost pair of centroids. All but that one are counted.
template <int kBits, bool kIsV>
class CentroidCounts {
 public:
  static constexpr int kCounted = (1 << (kBits - 1)) - 1;
  // What a lane counted, and what lanes that share tokens may add: byte i of word [k] is how often
  // magnitude k + 1 occurred in token i (K), or in token 4 step + i (V: [step][k]).
  static constexpr int kWordSets = kIsV ? 2 : 1;
  using Words = uint32_t[kWordSets][kCounted];

  // The quad of nibbles J of the step, in the low half of `quad`.
  TURBOKV_HOST_DEVICE void Add(uint32_t quad) {
    uint32_t index = quad;
    if constexpr (kBits == 4) {
      const uint32_t lower = ~quad & 0x8888u;  // codes 0..7 mirror 15..8
      index = (quad ^ (lower - (lower >> 3))) & 0x7777u;
    }
    TURBOKV_UNROLL
    for (int pair = 0; pair < kPairs; ++pair) {
      pairs_[pair] += SelectBytes(Increments(pair, 0), Increments(pair, 4), index);
    }
  }

  // Bytes move down as steps end: after four, they are in place.
  TURBOKV_HOST_DEVICE void EndStep() {
    TURBOKV_UNROLL
    for (int k = 0; k < kCounted; ++k) {
      const uint32_t counts = pairs_[k / 2] >> (4 * (k % 2)) & 0x0f0f0f0fu;
      if constexpr (kIsV) {
        words_[0][k] = SelectBytes(words_[0][k], words_[1][k], 0x5432u);
        words_[1][k] = SelectBytes(words_[1][k], counts + (counts >> 16), 0x5432u);
      } else {
        words_[0][k] = SelectBytes(words_[0][k], AddBytes(counts, 0), 0x4321u);
      }
    }
    TURBOKV_UNROLL
    for (int pair = 0; pair < kPairs; ++pair) pairs_[pair] = 0;
  }

  TURBOKV_HOST_DEVICE const Words& words() const { return words_; }

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

  // Of groups of 128.
  static constexpr float Square(int magnitude) {
    constexpr Codec kCodec = kBits == 2   ? Codec::kTurbo2
                             : kBits == 3 ? Codec::kTurbo3
                                          : Codec::kTurbo4;
    return static_cast<float>(CodebookOf(kCodec, 128).squares[kCounted + 1 + magnitude]);
  }
  // Byte i: what code (4 bits: magnitude) begin + i adds to a pair of counts, 4 bits each; eight
  // quads fit.
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

  uint32_t pairs_[kPairs] = {};
  Words words_ = {};
};

}  // namespace turbokv::cuda
