// The device headers of kernels that are compiled on first use, as strings. Generated at build time
// by embed_headers.cmake.
#pragma once

#include "absl/types/span.h"

namespace turbokv::cuda {

struct EmbeddedHeader {
  const char* path;  // as an #include names it: "kernels/cuda/primitives/ptx.cuh", "cstdint"
  const char* text;
};

absl::Span<const EmbeddedHeader> EmbeddedHeaders();

}  // namespace turbokv::cuda
