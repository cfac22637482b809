// The kernels that take what the fast ones do not, as launchers see them.
#pragma once

namespace turbokv::cuda {

// ExamineKernel(TensorParams k, TensorParams v, uint32_t* non_finite_page), grid (pages, 2).
inline constexpr int kExamineBlockThreads = 256;
const void* ExamineKernelFunction();

// ExactKernel(TensorParams k, TensorParams v), grid (any number up to pages x heads, 2).
inline constexpr int kExactBlockThreads = 256;
inline constexpr int kMaxExactBlocks = 2048;  // some waves on any GPU, so that they share evenly
const void* ExactKernelFunction();

}  // namespace turbokv::cuda
