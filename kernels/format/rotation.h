// The constants of the rotation and of the turbo codebooks.
//
// Source: TurboQuant (arXiv 2504.19874) as fixed by the public llama.cpp formats turbo2/3/4:
//   y = s2 * H_n (s1 * x) / sqrt(n)      (n = 64 or 128, H_n the Walsh-Hadamard matrix in natural
//   x = s1 * H_n (s2 * y) / sqrt(n)       order, * elementwise)
// with sign vectors drawn once (numpy default_rng(42)); groups of 64 use their first 64 entries.
#pragma once

#include <array>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/format/codec.h"

namespace turbokv {

// Bit i of byte i/8 (LSB first) set: sign i is negative.
inline constexpr std::array<uint8_t, 16> kRotationSigns1 = {
    0x59, 0x03, 0x6a, 0xe4, 0x49, 0x59, 0xf8, 0x42, 0xbb, 0x3b, 0xc6, 0xa4, 0xa9, 0x50, 0xf2, 0x49};
inline constexpr std::array<uint8_t, 16> kRotationSigns2 = {
    0x90, 0xee, 0xac, 0x16, 0xdc, 0x8f, 0x62, 0x3f, 0x7a, 0x35, 0xa5, 0xb7, 0x62, 0x65, 0xa5, 0xbe};

constexpr double RotationSign(const std::array<uint8_t, 16>& mask, int i) {
  return (mask[i / 8] >> (i % 8)) & 1 ? -1.0 : 1.0;
}

// A group with a smaller norm is encoded without normalising it (the public formats' threshold).
inline constexpr double kMinNormalizableNorm = 1e-10;

// Lloyd-Max centroids of N(0, 1/128), ascending, and the decision thresholds between them:
// code = number of thresholds <= value. Groups of 64 use both scaled by sqrt(2).
// Precondition: codec is kTurbo2, kTurbo3 or kTurbo4.
absl::Span<const double> TurboCentroids(Codec codec);
absl::Span<const double> TurboThresholds(Codec codec);

// The factor on centroids and thresholds for a group of 64 or 128 channels: sqrt(128 / channels).
double CentroidScale(int group_channels);

}  // namespace turbokv
