// intN in EncodeRotatedKernel.
#pragma once

#include "kernels/cuda/encode/int_quantizer.cuh"
#include "kernels/cuda/encode/rotated_kernel.cuh"

namespace turbokv::cuda {

template <int kChannels, bool kIsV>
class IntQuantizer {
 public:
  static constexpr int kScaleRows = 2;
  static constexpr size_t kSharedBytes = 0;
  using Tokens = LaneTokens<kIsV>;

  TURBOKV_DEVICE IntQuantizer(const TensorParams& params, uint8_t*, const uint32_t* lane_signs,
                              int lane)
      : lane_(lane),
        code_bits_(FactsOf(params.codec).code_bits),
        max_code_(static_cast<float>((1 << code_bits_) - 1)),
        lane_signs_(lane_signs) {}

  TURBOKV_DEVICE ByteCodes<kChannels, kIsV>& codes() { return codes_; }

  TURBOKV_DEVICE void Step(int step, float (&y)[kChannels / 16][4],
                           const TokenNumbers<kIsV>& squared_norms, float mean_norm,
                           uint16_t* scales) {
    Range ranges[Tokens::kPerStep];
    FlipAndFindRanges(y, ranges);
    IntScaling scaling[Tokens::kPerStep];
    float guards[Tokens::kPerStep];
#pragma unroll
    for (int k = 0; k < Tokens::kPerStep; ++k) {
      const float norm = ApproximateRoot(squared_norms[k]) * kInverseRootChannels;
      guards[k] = StoreScales(Tokens::kPerStep * step + k, ranges[k],
                              kIntGuard * (norm + kMeanShare * mean_norm), scaling[k], scales);
    }
    float farthest[4] = {};
    IntScaling factors[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) factors[i] = scaling[Tokens::InStep(i)];
    codes_.BeginStep();
#pragma unroll
    for (int block = 0; block < kChannels / 16; ++block) {
      codes_.Put(block, QuantizeIntQuad(y[block], factors, max_code_, farthest));
    }
#pragma unroll
    for (int k = 0; k < Tokens::kPerStep; ++k) {
      const float distance =
          kIsV ? fmaxf(farthest[k], farthest[k + 2])
               : fmaxf(fmaxf(farthest[0], farthest[1]), fmaxf(farthest[2], farthest[3]));
      const bool certain = distance + guards[k] < 0.5f;
      if (!certain) doubtful_ |= 1u << Tokens::Token(lane_, Tokens::kPerStep * step + k);
    }
  }

  TURBOKV_DEVICE uint32_t Finish(uint16_t*) { return __reduce_or_sync(~0u, doubtful_); }

  template <int kPerLane, class Scratch>
  TURBOKV_DEVICE GroupScales EncodeExactly(double (&x)[kPerLane], const Scratch& scratch,
                                           uint32_t (&codes)[kPerLane]) const {
    return EncodeIntExactly<kPerLane>(x, (1 << code_bits_) - 1, scratch, lane_, codes);
  }

  TURBOKV_DEVICE void StoreCodes(uint8_t* section, int first_tile) const {
    switch (code_bits_) {
      case 4:
        return Store<4>(section, first_tile);
      case 5:
        return Store<5>(section, first_tile);
      case 6:
        return Store<6>(section, first_tile);
      default:
        return Store<8>(section, first_tile);
    }
  }

 private:
  static constexpr float kInverseRootChannels = kChannels == 64 ? 0.125f : 0.088388348f;

  struct Range {
    float min;
    float max;
  };

  // The last sign flip, and the range of each token's values.
  TURBOKV_DEVICE void FlipAndFindRanges(float (&y)[kChannels / 16][4],
                                        Range (&ranges)[Tokens::kPerStep]) const {
    constexpr float kHuge = 3e38f;
    const uint32_t signs = lane_signs_[lane_];
#pragma unroll
    for (int k = 0; k < Tokens::kPerStep; ++k) ranges[k] = {kHuge, -kHuge};
#pragma unroll
    for (int block = 0; block < kChannels / 16; ++block) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& value = y[block][i];
        const int bit = kIsV ? 2 * block + (i >> 1) : 4 * block + i;
        value = __uint_as_float(__float_as_uint(value) ^ (signs << (31 - bit) & 0x80000000u));
        Range& range = ranges[Tokens::InStep(i)];
        range = {fminf(range.min, value), fmaxf(range.max, value)};
      }
    }
#pragma unroll
    for (Range& range : ranges) {
      range.min = OverSharers<kIsV>(range.min, [](float a, float b) { return fminf(a, b); });
      range.max = OverSharers<kIsV>(range.max, [](float a, float b) { return fmaxf(a, b); });
    }
  }

  // `error` bounds that of a value. Returns what that makes in codes: 1 where scales are in doubt.
  TURBOKV_DEVICE float StoreScales(int index, const Range& range, float error, IntScaling& scaling,
                                   uint16_t* scales) const {
    const float min = range.min * kInverseRootChannels;
    const uint32_t min_pair = PackHalves(min - error, min + error);
    const float stored_min = LowHalf(min_pair);
    const float inverse_max_code = Reciprocal(max_code_);
    const float step = (range.max * kInverseRootChannels - stored_min) * inverse_max_code;
    const float step_error = error * inverse_max_code;
    const uint32_t step_pair = PackHalves(step - step_error, step + step_error);
    const float stored_step = LowHalf(step_pair);
    if (lane_ / Tokens::kFirstStride % Tokens::kSharers == 0) {
      uint16_t* token_scales = scales + Tokens::Token(lane_, index);
      token_scales[0] = static_cast<uint16_t>(step_pair);
      token_scales[kPageTokens] = static_cast<uint16_t>(min_pair);
    }
    const float inverse_range = Reciprocal(stored_step * max_code_);
    scaling = {kInverseRootChannels * inverse_range, -stored_min * inverse_range};
    const bool certain = min_pair >> 16 == (min_pair & 0xffff) &&
                         step_pair >> 16 == (step_pair & 0xffff) && stored_step > 0;
    return certain ? error * max_code_ * inverse_range : 1.0f;
  }

  template <int kBits>
  TURBOKV_DEVICE void Store(uint8_t* section, int first_tile) const {
#pragma unroll
    for (int block = 0; block < kChannels / kTileChannels; ++block) {
      uint32_t words[kBits];
      PackAffine<kBits>(codes_.quads[block], words);
      auto* tile = reinterpret_cast<uint32_t*>(section) + (first_tile + block) * kBits * kWarpLanes;
#pragma unroll
      for (int r = 0; r < kBits; ++r) tile[r * kWarpLanes + lane_] = words[r];
    }
  }

  const int lane_;
  const int code_bits_;
  const float max_code_;
  const uint32_t* const lane_signs_;
  ByteCodes<kChannels, kIsV> codes_;
  uint32_t doubtful_ = 0;
};

}  // namespace turbokv::cuda
