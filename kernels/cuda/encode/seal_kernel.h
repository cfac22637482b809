// The sealing kernel as its launcher sees it.
#pragma once

namespace turbokv::cuda {

// SealKernel(SealParams), grid (pages).
inline constexpr int kSealBlockThreads = 256;
const void* SealKernelFunction();

}  // namespace turbokv::cuda
