#include "kernels/reference/rotation.h"

#include <cmath>

#include "kernels/format/rotation.h"

namespace turbokv::reference {
namespace {

void FlipSigns(const std::array<uint8_t, 16>& mask, absl::Span<double> group) {
  for (size_t i = 0; i < group.size(); ++i) group[i] *= RotationSign(mask, static_cast<int>(i));
}

// Walsh-Hadamard, unnormalised, in natural order: stages of stride 1, 2, 4...
void Transform(absl::Span<double> group) {
  for (size_t stride = 1; stride < group.size(); stride *= 2) {
    for (size_t begin = 0; begin < group.size(); begin += 2 * stride) {
      for (size_t i = begin; i < begin + stride; ++i) {
        const double a = group[i];
        const double b = group[i + stride];
        group[i] = a + b;
        group[i + stride] = a - b;
      }
    }
  }
}

double InverseSqrt(size_t channels) { return 1.0 / std::sqrt(static_cast<double>(channels)); }

}  // namespace

void RotateGroup(absl::Span<double> group, double factor) {
  FlipSigns(kRotationSigns1, group);
  Transform(group);
  for (double& value : group) value *= factor;
  FlipSigns(kRotationSigns2, group);
}

void RotateGroup(absl::Span<double> group) { RotateGroup(group, InverseSqrt(group.size())); }

void UnrotateGroup(absl::Span<double> group) {
  FlipSigns(kRotationSigns2, group);
  Transform(group);
  for (double& value : group) value *= InverseSqrt(group.size());
  FlipSigns(kRotationSigns1, group);
}

double SumOfSquares(absl::Span<const double> values) {
  double p[8] = {};
  for (size_t i = 0; i < values.size(); ++i) p[i % 8] += values[i] * values[i];
  return ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
}

}  // namespace turbokv::reference
