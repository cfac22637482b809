// Arguments of the copying kernel: plain structs that host and device code share.
#pragma once

#include <cstdint>

namespace turbokv::cuda {

// All three are multiples of 16.
struct CopyDescriptor {
  const uint8_t* from;
  uint8_t* to;
  uint64_t bytes;
};

}  // namespace turbokv::cuda
