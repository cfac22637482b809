// Streams of real devices; compiled with TURBOKV_CUDA only.
#pragma once

#include "client/nccl/stream_ops.h"

namespace turbokv {

// Lives as long as the process.
StreamOps* CudaStreamOps();

}  // namespace turbokv
