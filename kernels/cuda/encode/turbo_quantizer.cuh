// turboN of rotated values in float, with the distance to the nearest decision threshold: where it
// is above what float arithmetic may have changed, codes are those of the reference.
//
// A value picks one of 32 bins by its size; a bin has one threshold at most. Values are normalised:
// thresholds are those of groups of 128 whatever the group.
#pragma once

#include "kernels/cuda/encode/codebook.cuh"

namespace turbokv::cuda {

// Bins divide -kBinRange..kBinRange evenly; the outer ones hold what lies beyond, too.
inline constexpr int kTurboBins = 32;
inline constexpr float kBinRange = 0.25f;

// code = base + (value >= threshold).
struct alignas(8) TurboBin {
  float threshold;
  float base;
};
// A copy for every lane of half a warp: 8-byte reads of shared memory are done by halves, and no
// two lanes of one meet in a bank.
inline constexpr int kTurboBinCopies = kWarpLanes / 2;
using TurboBinTable = TurboBin[kTurboBins][kTurboBinCopies];

namespace turbo_bins {
// A value's place in units of 1 / 128 bin, as the low bits of kPlaceOrigin + place.
inline constexpr float kLastPlace = 4095.0f;
inline constexpr float kPlaceOrigin = 8388608.0f;  // 2^23: bits of sums with it are integers
inline constexpr uint32_t kBinBytes = 128;         // of a table's bin: 16 copies x 8
inline constexpr uint32_t kPlaceMask = 0x7fff80u;  // without the place inside a bin
}  // namespace turbo_bins

// How far beyond its own bin a value sees thresholds.
inline constexpr float kTurboBinMargin = 1e-4f;

constexpr TurboBin TurboBinOf(Codec codec, int bin) {
  constexpr double kMargin = kTurboBinMargin;
  constexpr double kUnit = 2 * kBinRange / turbo_bins::kLastPlace;
  const double low = bin == 0 ? -1.0 : (128 * bin - 0.5) * kUnit - kBinRange - kMargin;
  const double high =
      bin == kTurboBins - 1 ? 1.0 : (128 * bin + 127.5) * kUnit - kBinRange + kMargin;
  const Codebook book = CodebookOf(codec, 128);
  int below = 0;
  while (below < book.thresholds_count && book.thresholds[below] < low) ++below;
  const bool has_threshold = below < book.thresholds_count && book.thresholds[below] <= high;
  constexpr float kUnreachable = 4.0f;
  return {has_threshold ? static_cast<float>(book.thresholds[below]) : kUnreachable,
          static_cast<float>(below)};
}

// Reads a lane's column of a table at a multiple of kBinBytes. The place of a value is made an
// address by the very addition that makes it an integer.
class TurboBinReader {
 public:
#ifdef __CUDACC__
  TURBOKV_DEVICE TurboBinReader(uint32_t table_address, int lane)
      : origin_(turbo_bins::kPlaceOrigin + static_cast<float>(table_address)),
        lane_bytes_(static_cast<uint32_t>(lane % kTurboBinCopies) * sizeof(TurboBin)) {}
  TURBOKV_DEVICE TurboBin Read(float share) const {
    const float place = MultiplyAdd(share, turbo_bins::kLastPlace, origin_);
    const uint32_t address = (BitsOf(place) & turbo_bins::kPlaceMask) | lane_bytes_;
    TurboBin bin;
    asm("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(bin.threshold), "=f"(bin.base) : "r"(address));
    return bin;
  }

 private:
  float origin_;
  uint32_t lane_bytes_;
#else
  explicit TurboBinReader(const TurboBin (&bins)[kTurboBins]) : bins_(bins) {}
  TurboBin Read(float share) const {
    const float place = MultiplyAdd(share, turbo_bins::kLastPlace, turbo_bins::kPlaceOrigin);
    return bins_[(BitsOf(place) & turbo_bins::kPlaceMask) / turbo_bins::kBinBytes];
  }

 private:
  const TurboBin (&bins_)[kTurboBins];
#endif
};

// Lowers `nearest` to the smallest distance of y[i] * inverse[i] to a threshold. Returns the codes
// as a quad of nibbles (pack.cuh) in the low 16 bits; the others are not cleared.
TURBOKV_HOST_DEVICE uint32_t QuantizeTurboQuad(const float (&y)[4], const float (&inverse)[4],
                                               const TurboBinReader& bins, float (&nearest)[4]) {
  float digits = 0.0f;
  TURBOKV_UNROLL
  for (int i = 3; i >= 0; --i) {
    const float share = Saturate(MultiplyAdd(y[i], inverse[i] * (0.5f / kBinRange), 0.5f));
    const TurboBin bin = bins.Read(share);
    const float distance = MultiplyAdd(y[i], inverse[i], -bin.threshold);
    nearest[i] = Smaller(nearest[i], Magnitude(distance));
    // Whole even where it is in doubt: the quad's other codes may be another token's.
    const float code = bin.base + (distance > 0.0f ? 1.0f : 0.0f);
    digits = i == 3 ? code : MultiplyAdd(digits, 16.0f, code);
  }
  return BitsOf(digits + turbo_bins::kPlaceOrigin);
}

}  // namespace turbokv::cuda
