// The page codec of the offline commands.
#pragma once

#include "kernels/cpu/codec.h"

namespace turbokv::cli {

using cpu::DecodePage;
using cpu::EncodePage;

}  // namespace turbokv::cli
