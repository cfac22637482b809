// The lookup tables of codecs whose codes are four bits or fewer.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/format/codec.h"

namespace turbokv::cpu {

// What code i stands for before its scale (CentroidScale included) is applied, repeated to 16
// entries; unused by codecs that need no table.
const std::array<float, 16>& ReaderTable(Codec codec);

// The centroids of a turbo codec as 16-bit integers: centroid i is entries[i] x unit within 3e-5 of
// the standard deviation. Repeated to 32 entries.
struct IntegerCodebook {
  int16_t entries[32];
  float unit;
};

// Precondition: codec is kTurbo2, kTurbo3 or kTurbo4.
const IntegerCodebook& IntegerCodebookOf(Codec codec);

}  // namespace turbokv::cpu
