// The lookup tables of codecs whose codes are four bits or fewer.
#pragma once

#include <array>

#include "kernels/format/codec.h"

namespace turbokv::cpu {

// What code i stands for before its scale (CentroidScale included) is applied, repeated to 16
// entries; unused by codecs that need no table.
std::array<float, 16> ReaderTable(Codec codec);

}  // namespace turbokv::cpu
