// From a codec and shape known at run time to an instance of DequantizeKernel.
#pragma once

#include "kernels/cuda/dequantize/dequantize_kernel.cuh"

namespace turbokv::cuda {

template <Codec kCodec, int kChannels>
DequantizeKernelInfo KernelOfUnit(bool is_v) {
  void (*const kernel)(DequantizeParams) =
      is_v ? DequantizeKernel<kCodec, kChannels, true> : DequantizeKernel<kCodec, kChannels, false>;
  return {reinterpret_cast<const void*>(kernel), kChannels};
}

template <Codec kCodec>
DequantizeKernelInfo KernelOfCodec(int head_dim, bool is_v) {
  if constexpr (UnitChannels(kCodec, 64) == UnitChannels(kCodec, 128)) {
    return KernelOfUnit<kCodec, UnitChannels(kCodec, 128)>(is_v);
  } else {
    return UnitChannels(kCodec, head_dim) == 64 ? KernelOfUnit<kCodec, 64>(is_v)
                                                : KernelOfUnit<kCodec, 128>(is_v);
  }
}

}  // namespace turbokv::cuda
