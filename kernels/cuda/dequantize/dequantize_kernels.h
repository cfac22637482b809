// The kernels of this folder, as launchers see them.
#pragma once

#include "kernels/format/codec_id.h"

namespace turbokv::cuda {

// DequantizeKernel(DequantizeParams). Grid: (head_dim / unit_channels, heads, pages).
struct DequantizeKernelInfo {
  const void* function = nullptr;
  int unit_channels = 0;
};
inline constexpr int kDequantizeBlockThreads = 128;

// Function null: not a codec of this family.
DequantizeKernelInfo DequantizeTurboKernel(Codec codec, int head_dim, bool is_v);
DequantizeKernelInfo DequantizeIntKernel(Codec codec, int head_dim, bool is_v);
DequantizeKernelInfo DequantizeUnrotatedKernel(Codec codec, int head_dim, bool is_v);

// ExactDecodeKernel(ExactDecodeParams k, ExactDecodeParams v). Grid: (pages x heads, 2: K, then V,
// 4: tokens by 32).
const void* ExactDecodeKernelFunction();
inline constexpr int kExactDecodeBlockThreads = 256;

}  // namespace turbokv::cuda
