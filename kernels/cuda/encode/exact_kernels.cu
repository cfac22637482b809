#include "kernels/cuda/encode/exact_kernel.cuh"
#include "kernels/cuda/encode/exact_kernels.h"
#include "kernels/cuda/encode/examine_kernel.cuh"

namespace turbokv::cuda {

static_assert(kExamineBlockThreads == kExamineThreads);
static_assert(kExactBlockThreads == kExactThreads);

const void* ExamineKernelFunction() { return reinterpret_cast<const void*>(ExamineKernel); }
const void* ExactKernelFunction() { return reinterpret_cast<const void*>(ExactKernel); }

}  // namespace turbokv::cuda
