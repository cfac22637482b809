// The rotation of rotation.h, in place, in double. channels: 64 or 128.
#pragma once

#include "absl/types/span.h"

namespace turbokv::reference {

void RotateGroup(absl::Span<double> group);
void UnrotateGroup(absl::Span<double> group);

}  // namespace turbokv::reference
