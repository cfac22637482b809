// Where turboN's decision thresholds are, as a table that a value looks its own one up in.
//
// The range of normalised values is cut into cells that hold one threshold at most; values are
// normalised for groups of 128 whatever the group. A cell's word is a float, minus the threshold
// times a gain, whose lowest four bits are not its own: they hold the code above the threshold. The
// gain makes 2 of the distance that float arithmetic may be wrong by, so that one exponent bit of
//   value * gain + word
// tells whether the code is certain, and its sign whether it is the lower one.
#pragma once

#include "kernels/cuda/encode/codebook.cuh"
#include "kernels/cuda/encode/rounding_bounds.cuh"

namespace turbokv::cuda {

inline constexpr int kTurboCells = 128;
inline constexpr uint32_t kTurboTableBytes = kTurboCells * sizeof(uint32_t);
// Normalised values are at most 1 in size (a hair more by rounding): cells wrap beyond that, which
// only values of tokens do that are in doubt for their norm.
inline constexpr float kTurboCellsPerUnit = 62.0f;

namespace turbo_cells {
// A value's place in quarters of a cell, as the low bits of kOrigin + place: times 1, the byte
// offset of the cell's word, but for the two lowest bits.
inline constexpr float kPlacesPerUnit = 4.0f * kTurboCellsPerUnit;
inline constexpr float kOrigin = 12582912.0f;  // 1.5 x 2^23: bits of sums with it are integers
inline constexpr uint32_t kOffsetMask = 4 * (kTurboCells - 1);
}  // namespace turbo_cells

// Errors of tokens differ (rounding_bounds.cuh): there is a table for each of some ratios.
inline constexpr int kTurboRatios = 8;
constexpr double TurboRatio(int index) {
  constexpr double kRatios[kTurboRatios] = {1, kRoot2, 2, 2 * kRoot2, 4, 8, 16, 32};
  return kRatios[index];
}
inline constexpr float kLargestTurboRatio = 32.0f;

// Distances times this are below 2 in size where codes are in doubt; a little more is in doubt.
constexpr float TurboGain(int ratio_index) {
  return static_cast<float>(1.999 / (kTurboGuard * TurboRatio(ratio_index)));
}

// How far outside of its own cell a value sees thresholds.
inline constexpr double kTurboCellMargin = 1e-4;
static_assert(kTurboGuard * kLargestTurboRatio < 0.9 * kTurboCellMargin,
              "values of cells without a threshold are certain");

// The float next to `value` whose four lowest bits are `nibble`.
constexpr uint32_t FloatWithNibble(double value, uint32_t nibble) {
  const auto number = [](uint32_t bits) { return double{__builtin_bit_cast(float, bits)}; };
  const auto distance = [&](uint32_t bits) {
    const double difference = number(bits) - value;
    return difference < 0 ? -difference : difference;
  };
  const uint32_t near = (__builtin_bit_cast(uint32_t, static_cast<float>(value)) & ~15u) | nibble;
  if (value == 0) return nibble;
  uint32_t best = near;
  if (distance(near - 16) < distance(best)) best = near - 16;
  if (distance(near + 16) < distance(best)) best = near + 16;
  return best;
}

struct alignas(16) TurboTable {
  uint32_t words[kTurboCells];
};

// The threshold of a cell (its index in the book): its own one, or the next if it has none.
constexpr int ThresholdOfCell(const Codebook& book, int cell) {
  constexpr double kUnit = 1.0 / turbo_cells::kPlacesPerUnit;
  const int first_place = 4 * (cell < kTurboCells / 2 ? cell : cell - kTurboCells);
  const double middle = (first_place + 1.5) * kUnit;
  int nearest = 0;
  for (int i = 1; i < book.thresholds_count; ++i) {
    const double old_distance = middle - book.thresholds[nearest];
    const double distance = middle - book.thresholds[i];
    if (distance * distance < old_distance * old_distance) nearest = i;
  }
  return nearest;
}

constexpr TurboTable TurboTableOf(Codec codec, int ratio_index) {
  const Codebook book = CodebookOf(codec, 128);
  TurboTable table{};
  for (int cell = 0; cell < kTurboCells; ++cell) {
    const int i = ThresholdOfCell(book, cell);
    table.words[cell] =
        FloatWithNibble(-book.thresholds[i] * TurboGain(ratio_index), static_cast<uint32_t>(i) + 1);
  }
  return table;
}

// A step's place in a table in shared memory, aligned to its size.
class TurboCellReader {
 public:
#ifdef __CUDACC__
  explicit TURBOKV_DEVICE TurboCellReader(uint32_t table_address) : table_(table_address) {}
#else
  explicit TurboCellReader(const TurboTable& table) : table_(table) {}
#endif

  // The word of y's cell; `factor` makes places of y.
  TURBOKV_HOST_DEVICE uint32_t Read(float y, float factor) const {
    const uint32_t place = BitsOf(MultiplyAdd(y, factor, turbo_cells::kOrigin));
    const uint32_t offset = place & turbo_cells::kOffsetMask;
#ifdef __CUDACC__
    uint32_t word;
    asm("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(offset | table_));
    return word;
#else
    return table_.words[offset / 4];
#endif
  }

 private:
#ifdef __CUDACC__
  const uint32_t table_;
#else
  const TurboTable& table_;
#endif
};

// The code of a value (as normalised values are, or `scale` times that) that is to be told from
// its cell's threshold exactly. `thresholds`: of a Codebook, times the scale.
TURBOKV_HOST_DEVICE uint32_t ExactTurboCode(double value, float inverse_scale,
                                            const TurboCellReader& cells,
                                            const double (&thresholds)[kMaxThresholds]) {
  const uint32_t word =
      cells.Read(static_cast<float>(value), turbo_cells::kPlacesPerUnit * inverse_scale);
  const uint32_t lower = (word & 15) - 1;
  return lower + (thresholds[lower] <= value ? 1 : 0);
}

}  // namespace turbokv::cuda
