#include "kernels/cuda/dequantize/choose_kernel.cuh"

namespace turbokv::cuda {

DequantizeKernelInfo DequantizeTurboKernel(Codec codec, int head_dim, bool is_v) {
  switch (codec) {
    case Codec::kTurbo4:
      return KernelOfCodec<Codec::kTurbo4>(head_dim, is_v);
    case Codec::kTurbo3:
      return KernelOfCodec<Codec::kTurbo3>(head_dim, is_v);
    case Codec::kTurbo2:
      return KernelOfCodec<Codec::kTurbo2>(head_dim, is_v);
    default:
      return {};
  }
}

}  // namespace turbokv::cuda
