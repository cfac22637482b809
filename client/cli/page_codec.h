// The page codec of the offline commands.
#pragma once

#include "kernels/reference/codec.h"

namespace turbokv::cli {

using reference::DecodePage;
using reference::EncodePage;

}  // namespace turbokv::cli
