// The rotation of rotation.h, in place, in double. channels: 64 or 128.
#pragma once

#include "absl/types/span.h"

namespace turbokv::reference {

void RotateGroup(absl::Span<double> group);
// y = s2 * (factor H(s1 * x)): the rotation is factor = 1 / sqrt(channels).
void RotateGroup(absl::Span<double> group, double factor);
void UnrotateGroup(absl::Span<double> group);

// The sum of squares in the one order that every implementation keeps, so that scales come out the
// same bit for bit: value i is added to partial sum i % 8; then
// ((p0 + p4) + (p2 + p6)) + ((p1 + p5) + (p3 + p7)).
double SumOfSquares(absl::Span<const double> values);

}  // namespace turbokv::reference
