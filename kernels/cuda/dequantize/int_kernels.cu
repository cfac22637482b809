#include "kernels/cuda/dequantize/choose_kernel.cuh"

namespace turbokv::cuda {

DequantizeKernelInfo DequantizeIntKernel(Codec codec, int head_dim, bool is_v) {
  switch (codec) {
    case Codec::kInt8:
      return KernelOfCodec<Codec::kInt8>(head_dim, is_v);
    case Codec::kInt6:
      return KernelOfCodec<Codec::kInt6>(head_dim, is_v);
    case Codec::kInt5:
      return KernelOfCodec<Codec::kInt5>(head_dim, is_v);
    case Codec::kInt4:
      return KernelOfCodec<Codec::kInt4>(head_dim, is_v);
    default:
      return {};
  }
}

}  // namespace turbokv::cuda
