// The numbers of turboN's codebooks (kernels/format/rotation.h) for kernels.
#pragma once

#include "kernels/cuda/primitives/host_device.cuh"
#include "kernels/cuda/primitives/rotation_signs.cuh"
#include "kernels/format/codec_id.h"

namespace turbokv::cuda {

inline constexpr int kMaxThresholds = 15;
inline constexpr int kMaxCentroids = 16;

// sqrt(128), rounded; sqrt(64) is 8.
inline constexpr double kRoot128 = 11.313708498984760390413509793678;
inline constexpr double kRoot2 = 1.4142135623730950488016887242097;
inline constexpr double kSmallestNormalizableNorm = 1e-10;

template <int kBits>
inline constexpr Codec kTurboCodec = kBits == 2   ? Codec::kTurbo2
                                     : kBits == 3 ? Codec::kTurbo3
                                                  : Codec::kTurbo4;

// Ascending. Squares are those of the centroids, rounded to double.
struct Codebook {
  int thresholds_count;
  double thresholds[kMaxThresholds];
  double squares[kMaxCentroids];
};

// The upper halves: the lower ones are their mirror images.
struct CodebookHalf {
  int count;  // of centroids
  double centroids[8];
  double thresholds[7];  // above zero
};
constexpr CodebookHalf CodebookHalfOf(Codec codec) {
  if (codec == Codec::kTurbo2) return {2, {.039994, .133462}, {.086728}};
  if (codec == Codec::kTurbo3) {
    return {4, {.021460, .065717, .117832, .190685}, {.043589, .091775, .154259}};
  }
  return {8,
          {.011353, .034311, .058069, .083317, .111065, .143047, .182907, .241556},
          {.022832, .046190, .070693, .097191, .127056, .162977, .212232}};
}

// Of groups of `channels` (64 or 128).
constexpr Codebook CodebookOf(Codec codec, int channels) {
  const CodebookHalf half = CodebookHalfOf(codec);
  const double scale = channels == 64 ? kRoot2 : 1.0;
  Codebook book{};
  book.thresholds_count = 2 * half.count - 1;
  for (int i = 0; i < half.count; ++i) {
    const double centroid = half.centroids[i] * scale;
    book.squares[half.count + i] = centroid * centroid;
    book.squares[half.count - 1 - i] = centroid * centroid;
    if (i + 1 == half.count) break;
    book.thresholds[half.count + i] = half.thresholds[i] * scale;
    book.thresholds[half.count - 2 - i] = -half.thresholds[i] * scale;
  }
  return book;
}

}  // namespace turbokv::cuda
