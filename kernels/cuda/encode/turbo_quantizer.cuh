// turboN of rotated values in float, with what float arithmetic cannot decide.
#pragma once

#include "kernels/cuda/encode/lane_codes.cuh"
#include "kernels/cuda/encode/turbo_cells.cuh"

namespace turbokv::cuda {

// What makes places (turbo_cells.cuh), and distances to thresholds, of a token's values.
struct TurboScaling {
  float place;
  float distance;
};
TURBOKV_HOST_DEVICE TurboScaling TurboScalingOf(float inverse_norm, float gain) {
  return {inverse_norm * turbo_cells::kPlacesPerUnit, inverse_norm * gain};
}

// Up to eight values' codes, four bits each, the first value's lowest.
class TurboCodeWord {
 public:
  TURBOKV_HOST_DEVICE void Add(float y, const TurboScaling& scaling, const TurboCellReader& cells) {
    const uint32_t word = cells.Read(y, scaling.place);
    upper_codes_ = AppendLowNibble(upper_codes_, word);
    distances_ =
        AppendHighNibble(distances_, BitsOf(MultiplyAdd(y, scaling.distance, FloatOf(word))));
  }

  // Of eight values. Clears of `certain` what is in doubt: bit 1 of the nibble. Codes are whole
  // even where they are in doubt: others may be another token's.
  TURBOKV_HOST_DEVICE uint32_t Finish(uint32_t& certain) const {
    // A distance's nibble is its sign and its three highest exponent bits; backwards, bits 0..3.
    const uint32_t distances = ReverseBits(distances_);
    certain &= distances;
    return upper_codes_ - (distances & 0x11111111u);
  }

 private:
  uint32_t upper_codes_ = 0;
  uint32_t distances_ = 0;
};
inline constexpr uint32_t kAllCertain = 0x22222222u;

// The codes of 32 tokens' values that a lane has, step after step.
template <int kChannels, bool kIsV>
class TurboCollector;

// K: a step's values are one token's.
template <int kChannels>
class TurboCollector<kChannels, false> {
 public:
  // Puts the step's codes behind those in `codes`. Returns the AND of what Finish leaves.
  TURBOKV_HOST_DEVICE uint32_t Step(const float (&y)[kChannels / 16][4],
                                    const TurboScaling& scaling, const TurboCellReader& cells,
                                    NibbleCodes<kChannels, false>& codes) {
    codes.BeginStep();
    uint32_t certain = kAllCertain;
    TURBOKV_UNROLL
    for (int block = 0; block < kChannels / 32; ++block) {
      TurboCodeWord word;
      TURBOKV_UNROLL
      for (int j = 0; j < 8; ++j) word.Add(y[2 * block + (j >> 2)][j & 3], scaling, cells);
      codes.nibbles[block][3] = word.Finish(certain);
    }
    return certain;
  }
};

// V: a step's values are two tokens', in every word.
template <int kChannels>
class TurboCollector<kChannels, true> {
 public:
  TURBOKV_HOST_DEVICE void Step(const float (&y)[kChannels / 16][4],
                                const TurboScaling (&scaling)[2], const TurboCellReader& cells) {
    TURBOKV_UNROLL
    for (int block = 0; block < kChannels / 16; ++block) {
      TURBOKV_UNROLL
      for (int i = 0; i < 4; ++i) {
        words_[block >> 1][2 * (block & 1) + (i >> 1)].Add(y[block][i], scaling[i & 1], cells);
      }
    }
  }

  // After all steps: the codes, and the AND of what Finish leaves: nibble 2 step + i is a token's.
  TURBOKV_HOST_DEVICE uint32_t Finish(NibbleCodes<kChannels, true>& codes) const {
    uint32_t certain = kAllCertain;
    TURBOKV_UNROLL
    for (int block = 0; block < kChannels / 32; ++block) {
      TURBOKV_UNROLL
      for (int n = 0; n < 4; ++n) codes.nibbles[block][n] = words_[block][n].Finish(certain);
    }
    return certain;
  }

 private:
  TurboCodeWord words_[kChannels / 32][4];
};

}  // namespace turbokv::cuda
