// What EncodePages takes, checked before anything is launched.
#pragma once

#include "absl/status/status.h"
#include "kernels/cuda/encode/encode.h"

namespace turbokv::cuda {

// INVALID_ARGUMENT names the field, its value and the limit. The layout is that of the pool.
absl::Status ValidateEncodeArguments(const EncodeArguments& arguments, PageLayout* layout);

}  // namespace turbokv::cuda
