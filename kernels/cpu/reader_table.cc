#include "kernels/cpu/reader_table.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/types/span.h"
#include "kernels/format/rotation.h"

namespace turbokv::cpu {

namespace {

constexpr int kCodecIds = 32;  // more than there are

std::array<float, 16> MakeReaderTable(Codec codec) {
  std::array<float, 16> table{};
  const CodecTraits& traits = TraitsOf(codec);
  for (int i = 0; i < 16; ++i) {
    if (traits.scale_kind == ScaleKind::kGroupFp16) {
      table[i] = static_cast<float>(TurboCentroids(codec)[i % (1 << traits.code_bits)]);
    } else {
      table[i] = static_cast<float>(codec == Codec::kQ4_0 ? i - 8 : i);
    }
  }
  return table;
}

std::array<std::array<float, 16>, kCodecIds> MakeReaderTables() {
  std::array<std::array<float, 16>, kCodecIds> tables{};
  for (const CodecTraits& traits : AllCodecs()) {
    if (traits.implemented) tables[static_cast<int>(traits.codec)] = MakeReaderTable(traits.codec);
  }
  return tables;
}

// Largest distance of centroid x scale from a whole number, relative to the scale.
double WorstRounding(absl::Span<const double> centroids, double scale) {
  double worst = 0;
  for (double centroid : centroids) {
    worst = std::max(worst, std::abs(centroid * scale - std::nearbyint(centroid * scale)) / scale);
  }
  return worst;
}

// Looks for the scale at which all centroids are nearly whole. The sums of integer_dot-inl.h have
// 31 bits: more for centroids would leave fewer for weights (RangeOfPart).
IntegerCodebook MakeIntegerCodebook(Codec codec) {
  constexpr double kLargest = 8191;
  const absl::Span<const double> centroids = TurboCentroids(codec);
  const double max_scale = kLargest / centroids.back();
  double best = max_scale;
  for (double scale = max_scale / 2; scale < max_scale; scale += 0.25) {
    if (WorstRounding(centroids, scale) < WorstRounding(centroids, best)) best = scale;
  }
  IntegerCodebook codebook{};
  for (size_t i = 0; i < std::size(codebook.entries); ++i) {
    const double entry = std::nearbyint(centroids[i % centroids.size()] * best);
    codebook.entries[i] = static_cast<int16_t>(entry);
  }
  codebook.unit = static_cast<float>(1 / best);
  return codebook;
}

}  // namespace

const std::array<float, 16>& ReaderTable(Codec codec) {
  static const std::array<std::array<float, 16>, kCodecIds> tables = MakeReaderTables();
  return tables[static_cast<int>(codec)];
}

const IntegerCodebook& IntegerCodebookOf(Codec codec) {
  static const IntegerCodebook turbo2 = MakeIntegerCodebook(Codec::kTurbo2);
  static const IntegerCodebook turbo3 = MakeIntegerCodebook(Codec::kTurbo3);
  static const IntegerCodebook turbo4 = MakeIntegerCodebook(Codec::kTurbo4);
  if (codec == Codec::kTurbo2) return turbo2;
  return codec == Codec::kTurbo3 ? turbo3 : turbo4;
}

}  // namespace turbokv::cpu
