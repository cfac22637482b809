// The verifying kernel as its launcher sees it.
#pragma once

namespace turbokv::cuda {

// VerifyKernel(VerifyParams), grid (pages).
inline constexpr int kVerifyBlockThreads = 256;
const void* VerifyKernelFunction();

}  // namespace turbokv::cuda
