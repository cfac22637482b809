// EncodeRotatedKernel's warp on the host: the kernel's own functions for each of 32 lanes, and what
// tensor cores and lane exchanges do between them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/cuda/encode/centroid_counts.cuh"
#include "kernels/cuda/encode/centroid_squares.cuh"
#include "kernels/cuda/encode/fragments.cuh"
#include "kernels/cuda/encode/int_quantizer.cuh"
#include "kernels/cuda/encode/lane_codes.cuh"
#include "kernels/cuda/encode/rounding_bounds.cuh"
#include "kernels/cuda/encode/turbo_quantizer.cuh"
#include "kernels/format/small_floats.h"

namespace turbokv::cuda::testing {

// A lane's values of a step (fragments.cuh).
template <int kChannels>
struct LaneValues {
  float y[kChannels / 16][4];
};

// What tensor cores make of 16 products and what they are added to: aligned to the largest, cut one
// bit below 24, summed, cut to 24 bits.
inline float CutSum(const std::array<double, 17>& terms) {
  double largest = 0;
  for (double term : terms) largest = std::max(largest, std::abs(term));
  if (largest == 0) return 0;
  const double unit = std::ldexp(1.0, std::ilogb(largest) - 24);
  double sum = 0;
  for (double term : terms) sum += std::trunc(term / unit) * unit;
  if (sum == 0) return 0;
  const double last_place = std::ldexp(1.0, std::ilogb(sum) - 23);
  return static_cast<float>(std::trunc(sum / last_place) * last_place);
}

// mma.m16n8k16 with bf16 operands as lanes hold them, adding to c.
using Operand = std::array<std::array<uint32_t, 4>, 32>;
inline void EmulateProduct(const Operand& a, const Operand& b, std::array<float*, 32> c) {
  double left[16][16], right[16][8];
  const auto half = [](uint32_t word, int e) {
    return double{Bf16ToFloat(static_cast<uint16_t>(word >> (16 * e)))};
  };
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int e = 0; e < 2; ++e) {
      for (int r = 0; r < 4; ++r) {
        left[g + 8 * (r & 1)][2 * t + 8 * (r >> 1) + e] = half(a[lane][r], e);
      }
      for (int r = 0; r < 2; ++r) right[2 * t + 8 * r + e][g] = half(b[lane][r], e);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      std::array<double, 17> terms;
      terms[16] = c[lane][i];
      for (int k = 0; k < 16; ++k) terms[k] = left[g + 8 * (i >> 1)][k] * right[k][2 * t + (i & 1)];
      c[lane][i] = CutSum(terms);
    }
  }
}

// 32 tokens of bf16 bits, [token][channel].
template <int kChannels>
using SlabBits = std::vector<std::array<uint16_t, kChannels>>;

// What a lane reads of a block: two words of two values, their signs flipped.
template <int kChannels>
std::array<uint32_t, 2> ReadBlock(const SlabBits<kChannels>& slab, int step, int lane, int block) {
  const auto& row = slab[TokenRead(step, lane >> 2)];
  std::array<uint32_t, 2> words;
  for (int word = 0; word < 2; ++word) {
    const int c = 16 * block + 4 * (lane & 3) + 2 * word;
    words[word] = (row[c] | uint32_t{row[c + 1]} << 16) ^ FlipPair(FirstSigns(block / 2), c);
  }
  return words;
}

// A mean of the group, and what GroupMean makes of it.
template <int kChannels>
struct EmulatedMean {
  std::array<float, kChannels> values{};
  std::array<float, kChannels> sums{};
  float norm = 0;

  void FindSums() {
    double square = 0;
    for (int channel = 0; channel < kChannels; ++channel) {
      square += double{values[channel]} * values[channel];
      double sum = 0;
      for (int from = channel / 16 * 16; from < channel / 16 * 16 + 16; ++from) {
        const bool first_sign = FirstSigns(from / 32) >> (from % 32) & 1;
        const bool sign = __builtin_popcount(static_cast<unsigned>(from & channel & 15)) & 1;
        sum += first_sign != sign ? -double{values[from]} : double{values[from]};
      }
      sums[PlaceOfSum<kChannels>(channel)] = -static_cast<float>(sum);
    }
    norm = static_cast<float>(std::sqrt(square)) * 1.0001f;
  }
};

// Products of a block (V), or of two blocks that are half of all apart (K).
template <int kChannels, bool kIsV>
void EmulateBlock(const SlabBits<kChannels>& slab, const EmulatedMean<kChannels>& mean, int step,
                  int block, std::vector<LaneValues<kChannels>>& lanes) {
  constexpr uint32_t kOne = 0x3f803f80;
  constexpr int kHalf = kChannels / 32;
  for (int q = 0; q < (kIsV ? 1 : 2); ++q) {
    Operand a{}, b{};
    std::array<std::array<float, 4>, 32> z{};
    std::array<float*, 32> c;
    for (int lane = 0; lane < 32; ++lane) {
      c[lane] = z[lane].data();
      const auto x = ReadBlock<kChannels>(slab, step, lane, block);
      if (kIsV) {
        for (int r = 0; r < 4; ++r) a[lane][r] = HadamardRow(kOne, r, lane);
        b[lane] = {x[0], x[1], 0, 0};
      } else {
        const auto other = ReadBlock<kChannels>(slab, step, lane, block + kHalf);
        a[lane] = {x[0], other[0], x[1], other[1]};
        for (int r = 0; r < 2; ++r) b[lane][r] = HadamardColumn(kOne, q, r, lane);
        const float* first = &mean.sums[FirstSums(block, q, lane & 3)];
        std::copy(first, first + 4, z[lane].begin());
      }
    }
    EmulateProduct(a, b, c);
    for (int lane = 0; lane < 32; ++lane) {
      auto& y = lanes[lane].y;
      for (int i = 0; i < 4; ++i) {
        if (kIsV) {
          y[block][i] = z[lane][i];
        } else {
          y[block + (i >> 1) * kHalf][2 * q + (i & 1)] = z[lane][i];
        }
      }
    }
  }
}

// TokenRotation::Run for every lane.
template <int kChannels, bool kIsV>
std::vector<LaneValues<kChannels>> EmulateRotation(const SlabBits<kChannels>& slab,
                                                   const EmulatedMean<kChannels>& mean, int step) {
  std::vector<LaneValues<kChannels>> lanes(32);
  for (int block = 0; block < kChannels / (kIsV ? 16 : 32); ++block) {
    EmulateBlock<kChannels, kIsV>(slab, mean, step, block, lanes);
  }
  for (auto& lane : lanes) TransformBlocks<kChannels / 16>(lane.y);
  return lanes;
}

// What a lane shares of its step's tokens, combined over those who share them.
template <bool kIsV>
using PerToken = std::array<float, LaneTokens<kIsV>::kPerStep>;
template <bool kIsV, class Combine>
void CombineSharers(std::vector<PerToken<kIsV>>& lanes, Combine combine) {
  using Tokens = LaneTokens<kIsV>;
  for (int stride = Tokens::kFirstStride; stride < Tokens::kEndStride; stride *= 2) {
    const auto before = lanes;
    for (int lane = 0; lane < 32; ++lane) {
      for (size_t k = 0; k < lanes[lane].size(); ++k) {
        lanes[lane][k] = combine(before[lane][k], before[lane ^ stride][k]);
      }
    }
  }
}

template <int kChannels, bool kIsV>
std::vector<PerToken<kIsV>> SquaredNorms(const std::vector<LaneValues<kChannels>>& lanes) {
  std::vector<PerToken<kIsV>> norms(32);
  for (int lane = 0; lane < 32; ++lane) {
    for (const auto& quad : lanes[lane].y) {
      for (int i = 0; i < 4; ++i) norms[lane][LaneTokens<kIsV>::InStep(i)] += quad[i] * quad[i];
    }
  }
  CombineSharers<kIsV>(norms, [](float a, float b) { return a + b; });
  return norms;
}

}  // namespace turbokv::cuda::testing
