// turboN in EncodeRotatedKernel.
#pragma once

#include "kernels/cuda/encode/centroid_counts.cuh"
#include "kernels/cuda/encode/rotated_kernel.cuh"
#include "kernels/cuda/encode/turbo_quantizer.cuh"

namespace turbokv::cuda {

template <int kBits>
inline constexpr Codec kTurboCodec = kBits == 2   ? Codec::kTurbo2
                                     : kBits == 3 ? Codec::kTurbo3
                                                  : Codec::kTurbo4;

struct TurboBinColumn {
  TurboBin bins[kTurboBins];
};
template <int kBits>
constexpr TurboBinColumn MakeTurboBins() {
  TurboBinColumn column{};
  for (int bin = 0; bin < kTurboBins; ++bin) {
    column.bins[bin] = TurboBinOf(kTurboCodec<kBits>, bin);
  }
  return column;
}
template <int kBits>
__constant__ const TurboBinColumn kTurboBinColumn = MakeTurboBins<kBits>();

template <int kBits, int kChannels>
__constant__ const Codebook kTurboBook = CodebookOf(kTurboCodec<kBits>, kChannels);

// Adds up what lanes that share tokens have counted. Returns the counts of the tokens that the
// lane's own one is among; its byte there is LaneTokens::Own % 4.
template <int kBits, bool kIsV>
TURBOKV_DEVICE void AddCounts(const CentroidCounts<kBits, kIsV>& counts, int lane,
                              uint32_t (&sums)[CentroidCounts<kBits, kIsV>::kCounted]) {
  using Tokens = LaneTokens<kIsV>;
  const auto& words = counts.words();
#pragma unroll
  for (int k = 0; k < CentroidCounts<kBits, kIsV>::kCounted; ++k) {
    if constexpr (kIsV) {
      // Half of the sharers take the first step's tokens, half the second's.
      const bool second = Tokens::Own(lane) >= 4;
      const uint32_t others = second ? words[0][k] : words[1][k];
      const uint32_t mine = second ? words[1][k] : words[0][k];
      sums[k] = mine + __shfl_xor_sync(~0u, others, 4 * Tokens::kFirstStride);
    } else {
      sums[k] = words[0][k];
    }
    sums[k] += __shfl_xor_sync(~0u, sums[k], Tokens::kFirstStride);
    sums[k] += __shfl_xor_sync(~0u, sums[k], 2 * Tokens::kFirstStride);
  }
}

template <int kBits, int kChannels, bool kIsV>
class TurboQuantizer {
 public:
  static constexpr int kScaleRows = 1;
  static constexpr size_t kSharedBytes = sizeof(TurboBinTable);
  using Tokens = LaneTokens<kIsV>;
  using Counts = CentroidCounts<kBits, kIsV>;

  TURBOKV_DEVICE TurboQuantizer(const TensorParams&, uint8_t* shared, const uint32_t* lane_signs,
                                int lane)
      : lane_(lane), lane_signs_(lane_signs), bins_(SharedAddress(shared), lane) {
    auto& table = *reinterpret_cast<TurboBinTable*>(shared);
    for (int i = threadIdx.x; i < kTurboBins * kTurboBinCopies; i += kEncodeThreads) {
      table[i / kTurboBinCopies][i % kTurboBinCopies] =
          kTurboBinColumn<kBits>.bins[i / kTurboBinCopies];
    }
  }

  TURBOKV_DEVICE NibbleCodes<kChannels, kIsV>& codes() { return codes_; }

  TURBOKV_DEVICE void Step(int step, const float (&y)[kChannels / 16][4],
                           const TokenNumbers<kIsV>& squared_norms, float mean_norm, uint16_t*) {
    TokenNumbers<kIsV> inverse;
#pragma unroll
    for (int k = 0; k < Tokens::kPerStep; ++k) {
      inverse[k] = ApproximateInverseRoot(squared_norms[k]) * kInverseCentroidScale;
    }
    float nearest[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    float factors[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) factors[i] = inverse[Tokens::InStep(i)];
    codes_.BeginStep();
#pragma unroll
    for (int block = 0; block < kChannels / 16; ++block) {
      const uint32_t quad = QuantizeTurboQuad(y[block], factors, bins_, nearest);
      counts_.Add(quad);
      codes_.Put(block, quad);
    }
    counts_.EndStep();
#pragma unroll
    for (int k = 0; k < Tokens::kPerStep; ++k) {
      const float distance =
          kIsV ? fminf(nearest[k], nearest[k + 2])
               : fminf(fminf(nearest[0], nearest[1]), fminf(nearest[2], nearest[3]));
      Judge(Tokens::kPerStep * step + k, squared_norms[k], distance, mean_norm);
    }
  }

  // Scales, and which of the 32 tokens float could not decide, for the whole warp.
  TURBOKV_DEVICE uint32_t Finish(uint16_t* scales) {
    const int own = Tokens::Own(lane_);
    uint32_t counts[Counts::kCounted];
    AddCounts(counts_, lane_, counts);
    const float sum = Counts::SumOfSquares(counts, own % 4, kChannels);
    const float scale = own_norm_ * ApproximateInverseRoot(sum) * kInverseCentroidScale;
    const float error = kTurboScaleGuard * own_ratio_ * scale;
    const uint32_t pair = PackHalves(scale - error, scale + error);
    const int token = Tokens::Token(lane_, own);
    constexpr uint32_t kFp16Infinity = 0x7c00;  // the exact path stores the largest finite number
    if ((pair >> 16) != (pair & 0xffff) || (pair & 0xffff) >= kFp16Infinity) {
      doubtful_ |= 1u << token;
    }
    scales[token] = static_cast<uint16_t>(pair);
    codes_.Flip(lane_signs_[lane_], (1 << kBits) - 1);
    return __reduce_or_sync(~0u, doubtful_);
  }

  template <int kPerLane, class Scratch>
  TURBOKV_DEVICE GroupScales EncodeExactly(double (&x)[kPerLane], const Scratch& scratch,
                                           uint32_t (&codes)[kPerLane]) const {
    return EncodeTurboExactly<kPerLane>(x, kTurboBook<kBits, kChannels>, (1 << kBits) - 1, scratch,
                                        lane_, codes);
  }

  TURBOKV_DEVICE void StoreCodes(uint8_t* section, int first_tile) const {
#pragma unroll
    for (int block = 0; block < kChannels / kTileChannels; ++block) {
      uint32_t words[kBits];
      PackTable<kBits>(codes_.nibbles[block], words);
      auto* tile = reinterpret_cast<uint32_t*>(section) + (first_tile + block) * kBits * kWarpLanes;
#pragma unroll
      for (int r = 0; r < kBits; ++r) tile[r * kWarpLanes + lane_] = words[r];
    }
  }

 private:
  static constexpr float kInverseCentroidScale = kChannels == 64 ? 0.70710678f : 1.0f;
  static constexpr float kInverseRootChannels = kChannels == 64 ? 0.125f : 0.088388348f;
  // Squared norms that float keeps its relative precision for, and that are normalised.
  static constexpr float kSmallestSquare = 1e-12f;
  static constexpr float kLargestSquare = 1e30f;

  // Whether a token's codes are in doubt; keeps what the scale of the lane's own token needs.
  TURBOKV_DEVICE void Judge(int index, float squared_norm, float distance, float mean_norm) {
    const float norm = ApproximateRoot(squared_norm) * kInverseRootChannels;
    const float ratio = kIsV ? 1.0f : 1.0f + mean_norm * Reciprocal(norm);
    const float guard = kTurboGuard * ratio;
    const bool certain = squared_norm >= kSmallestSquare && squared_norm <= kLargestSquare &&
                         distance >= guard && guard <= kTurboBinMargin;
    if (!certain) doubtful_ |= 1u << Tokens::Token(lane_, index);
    if (index == Tokens::Own(lane_)) {
      own_norm_ = norm;
      own_ratio_ = ratio;
    }
  }

  const int lane_;
  const uint32_t* const lane_signs_;
  const TurboBinReader bins_;
  NibbleCodes<kChannels, kIsV> codes_;
  Counts counts_;
  float own_norm_ = 0.0f;   // of x without mean
  float own_ratio_ = 1.0f;  // see rounding_bounds.cuh
  uint32_t doubtful_ = 0;
};

}  // namespace turbokv::cuda
