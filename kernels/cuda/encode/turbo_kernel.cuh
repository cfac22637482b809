// turboN in EncodeRotatedKernel.
#pragma once

#include "kernels/cuda/encode/centroid_counts.cuh"
#include "kernels/cuda/encode/centroid_squares.cuh"
#include "kernels/cuda/encode/rotated_kernel.cuh"
#include "kernels/cuda/encode/turbo_quantizer.cuh"

namespace turbokv::cuda {

struct TurboTables {
  TurboTable of_ratio[kTurboRatios];
};
template <int kBits>
constexpr TurboTables MakeTurboTables() {
  TurboTables tables{};
  for (int i = 0; i < kTurboRatios; ++i) tables.of_ratio[i] = TurboTableOf(kTurboCodec<kBits>, i);
  return tables;
}
template <int kBits>
__device__ const TurboTables kTurboTables = MakeTurboTables<kBits>();

struct TurboGains {
  float of_ratio[kTurboRatios];
};
constexpr TurboGains MakeTurboGains() {
  TurboGains gains{};
  for (int i = 0; i < kTurboRatios; ++i) gains.of_ratio[i] = TurboGain(i);
  return gains;
}
__constant__ const TurboGains kTurboGains = MakeTurboGains();

template <int kBits, int kChannels>
__constant__ const Codebook kTurboBook = CodebookOf(kTurboCodec<kBits>, kChannels);

// V: adds up what lanes that share tokens have counted. Returns the counts of the tokens that the
// lane's own one is among; its byte there is LaneTokens::Own % 4.
template <int kBits>
TURBOKV_DEVICE void AddCounts(const typename CentroidCounts<kBits>::Words& words, int lane,
                              uint32_t (&sums)[CentroidCounts<kBits>::kCounted]) {
  using Tokens = LaneTokens<true>;
#pragma unroll
  for (int k = 0; k < CentroidCounts<kBits>::kCounted; ++k) {
    // Half of the sharers take the tokens of low nibbles, half those of high ones.
    const bool second = Tokens::Own(lane) >= 4;
    const uint32_t others = second ? words[0][k] : words[1][k];
    const uint32_t mine = second ? words[1][k] : words[0][k];
    sums[k] = mine + __shfl_xor_sync(~0u, others, 4 * Tokens::kFirstStride);
    sums[k] += __shfl_xor_sync(~0u, sums[k], Tokens::kFirstStride);
    sums[k] += __shfl_xor_sync(~0u, sums[k], 2 * Tokens::kFirstStride);
  }
}

// The index of the smallest ratio (turbo_cells.cuh) above one from 1 up.
TURBOKV_DEVICE int TurboRatioAbove(float ratio) {
  float exponent;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(exponent) : "f"(ratio));
  const int index = __float2int_ru(fminf(2.0f * exponent, exponent + 2.0f));
  return min(max(index, 0), kTurboRatios - 1);  // whatever a NaN made it
}

template <int kBits, int kChannels, bool kIsV>
class TurboQuantizer {
 public:
  static constexpr int kScaleRows = 1;
  static constexpr int kTables = kIsV ? 1 : kTurboRatios;  // only K has a mean
  static constexpr size_t kSharedBytes = kTables * sizeof(TurboTable);
  using Tokens = LaneTokens<kIsV>;

  // What it copies into `shared` is there after WaitForCopies and a barrier.
  TURBOKV_DEVICE TurboQuantizer(const TensorParams&, uint8_t* shared, const uint32_t* lane_signs,
                                int lane)
      : lane_(lane), lane_signs_(lane_signs), tables_(SharedAddress(shared)) {
    const auto* tables = reinterpret_cast<const uint8_t*>(&kTurboTables<kBits>);
    constexpr int kBytesAtOnce = 16 * kEncodeThreads;
#pragma unroll
    for (int i = 0; i < static_cast<int>(kSharedBytes); i += kBytesAtOnce) {
      const int begin = i + 16 * static_cast<int>(threadIdx.x);
      if (begin < static_cast<int>(kSharedBytes)) CopyAsync16(shared + begin, tables + begin);
    }
  }

  TURBOKV_DEVICE NibbleCodes<kChannels, kIsV>& codes() { return codes_; }

  TURBOKV_DEVICE void Step(int step, const float (&y)[kChannels / 16][4],
                           const TokenNumbers<kIsV>& squared_norms, float mean_norm, uint16_t*) {
    TurboScaling scaling[Tokens::kPerStep];
    int ratio_index = 0;
#pragma unroll
    for (int k = 0; k < Tokens::kPerStep; ++k) {
      const int index = Tokens::kPerStep * step + k;
      const float norm = ApproximateRoot(squared_norms[k]) * kInverseRootChannels;
      float ratio = 1.0f;
      if constexpr (!kIsV) {
        ratio += kMeanShare * mean_norm * Reciprocal(norm);
        ratio_index = TurboRatioAbove(ratio);
      }
      const bool certain = squared_norms[k] >= kSmallestSquare &&
                           squared_norms[k] <= kLargestSquare && ratio <= kLargestTurboRatio;
      if (!certain) doubtful_ |= 1u << Tokens::Token(lane_, index);
      const float inverse = ApproximateInverseRoot(squared_norms[k]) * kInverseCentroidScale;
      scaling[k] = TurboScalingOf(inverse, kTurboGains.of_ratio[ratio_index]);
      if (index == Tokens::Own(lane_)) {
        own_norm_ = norm;
        own_ratio_ = ratio;
      }
    }
    const TurboCellReader cells(tables_ + ratio_index * sizeof(TurboTable));
    if constexpr (kIsV) {
      collector_.Step(y, scaling, cells);
    } else {
      const uint32_t certain = collector_.Step(y, scaling[0], cells, codes_);
      if (certain != kAllCertain) doubtful_ |= 1u << Tokens::Token(lane_, step);
      uint32_t words[kChannels / 32];
#pragma unroll
      for (int block = 0; block < kChannels / 32; ++block) words[block] = codes_.nibbles[block][3];
      uint32_t sum = CentroidSquares<kBits>::Sum(words);
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      if (step == Tokens::Own(lane_)) own_sum_ = sum;
    }
  }

  // Scales, and which of the 32 tokens float could not decide, for the whole warp.
  TURBOKV_DEVICE uint32_t Finish(uint16_t* scales) {
    const int own = Tokens::Own(lane_);
    const float sum = SumOfSquares(own);
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
    const Codebook& book = kTurboBook<kBits, kChannels>;
    const TurboCellReader cells(tables_);
    const auto code_of = [&](double value) {
      return ExactTurboCode(value, kInverseCentroidScale, cells, book.thresholds);
    };
    return EncodeTurboExactly<kPerLane>(x, book, code_of, scratch, lane_, codes);
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

  // Of the centroids of the lane's own token. V: takes the codes from the collector.
  TURBOKV_DEVICE float SumOfSquares(int own) {
    if constexpr (kIsV) {
      const uint32_t certain = collector_.Finish(codes_);
      if (certain != kAllCertain) {
#pragma unroll
        for (int index = 0; index < Tokens::kCount; ++index) {
          const bool is_certain = certain >> (4 * index) & kAllCertain & 15u;
          if (!is_certain) doubtful_ |= 1u << Tokens::Token(lane_, index);
        }
      }
      typename CentroidCounts<kBits>::Words words;
      CentroidCounts<kBits>::Count(codes_.nibbles, words);
      uint32_t counts[CentroidCounts<kBits>::kCounted];
      AddCounts<kBits>(words, lane_, counts);
      return CentroidCounts<kBits>::SumOfSquares(counts, own % 4, kChannels);
    } else {
      return static_cast<float>(own_sum_) * static_cast<float>(kSquareUnit);
    }
  }

  const int lane_;
  const uint32_t* const lane_signs_;
  const uint32_t tables_;  // an address in shared memory
  TurboCollector<kChannels, kIsV> collector_;
  NibbleCodes<kChannels, kIsV> codes_;
  float own_norm_ = 0.0f;   // of x without mean
  float own_ratio_ = 1.0f;  // see rounding_bounds.cuh
  uint32_t own_sum_ = 0;    // K, in kSquareUnit
  uint32_t doubtful_ = 0;
};

}  // namespace turbokv::cuda
