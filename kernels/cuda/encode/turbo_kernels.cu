#include "kernels/cuda/encode/rotated_kernels.h"
#include "kernels/cuda/encode/turbo_kernel.cuh"

namespace turbokv::cuda {
namespace {

static_assert(kEncodeBlockThreads == kEncodeThreads);

template <int kBits, int kChannels, bool kIsV>
RotatedKernel Kernel() {
  using Quantizer = TurboQuantizer<kBits, kChannels, kIsV>;
  return {reinterpret_cast<const void*>(EncodeRotatedKernel<kChannels, kIsV, Quantizer>),
          sizeof(RotatedShared<kChannels>) + Quantizer::kSharedBytes};
}

template <int kBits>
RotatedKernel KernelOfBits(int group_channels, bool is_v) {
  if (group_channels == 64) return is_v ? Kernel<kBits, 64, true>() : Kernel<kBits, 64, false>();
  return is_v ? Kernel<kBits, 128, true>() : Kernel<kBits, 128, false>();
}

}  // namespace

RotatedKernel TurboKernel(Codec codec, int group_channels, bool is_v) {
  switch (codec) {
    case Codec::kTurbo2:
      return KernelOfBits<2>(group_channels, is_v);
    case Codec::kTurbo3:
      return KernelOfBits<3>(group_channels, is_v);
    case Codec::kTurbo4:
      return KernelOfBits<4>(group_channels, is_v);
    default:
      return {};
  }
}

}  // namespace turbokv::cuda
