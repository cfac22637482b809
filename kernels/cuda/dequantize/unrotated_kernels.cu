#include "kernels/cuda/dequantize/choose_kernel.cuh"

namespace turbokv::cuda {

DequantizeKernelInfo DequantizeUnrotatedKernel(Codec codec, int head_dim, bool is_v) {
  switch (codec) {
    case Codec::kBf16:
      return KernelOfCodec<Codec::kBf16>(head_dim, is_v);
    case Codec::kFp16:
      return KernelOfCodec<Codec::kFp16>(head_dim, is_v);
    case Codec::kFp8E4m3:
      return KernelOfCodec<Codec::kFp8E4m3>(head_dim, is_v);
    case Codec::kQ8_0:
      return KernelOfCodec<Codec::kQ8_0>(head_dim, is_v);
    case Codec::kQ4_0:
      return KernelOfCodec<Codec::kQ4_0>(head_dim, is_v);
    default:
      return {};
  }
}

}  // namespace turbokv::cuda
