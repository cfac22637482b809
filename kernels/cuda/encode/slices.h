// The part of EncodePages before headers and checksums.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "kernels/cuda/encode/encode.h"

namespace turbokv::cuda {

// Writes the pages' slices; header, layer, generation, spec_id and first_token are not looked at.
// Leaves a PageState (params.cuh) a page at arguments.workspace, as SealPages (seal.h) takes them.
absl::Status EncodeSlices(const EncodeArguments& arguments, cudaStream_t stream);

}  // namespace turbokv::cuda
