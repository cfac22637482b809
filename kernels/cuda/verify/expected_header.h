// What the header of a page of a shape begins with.
#pragma once

#include "kernels/cuda/verify/params.cuh"
#include "kernels/format/page_layout.h"

namespace turbokv::cuda {

// Magic, version, sizes, codecs, flags, heads. Not the checksum, tokens and exponents.
ExpectedHeader ExpectedHeaderOf(const PageLayout& layout);

}  // namespace turbokv::cuda
