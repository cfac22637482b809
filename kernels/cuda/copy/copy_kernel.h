// The copying kernel as its launcher sees it.
#pragma once

namespace turbokv::cuda {

// CopyKernel(const CopyDescriptor* copies, int count), grid (blocks a copy, copies); either may be
// fewer than there is work for.
inline constexpr int kCopyBlockThreads = 256;
inline constexpr int kCopyVectorsAThread = 4;  // of 16 bytes, on their way at once
inline constexpr int kCopyBlockBytes = kCopyBlockThreads * kCopyVectorsAThread * 16;
const void* CopyKernelFunction();

}  // namespace turbokv::cuda
