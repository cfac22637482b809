#include "kernels/cuda/encode/rotated_kernels.h"
#include "kernels/cuda/encode/turbo_kernel.cuh"

namespace turbokv::cuda {
namespace {

static_assert(kEncodeBlockThreads == kEncodeThreads);

template <int kBits, int kChannels, bool kIsV, bool kBf16>
RotatedKernel Kernel() {
  using Quantizer = TurboQuantizer<kBits, kChannels, kIsV>;
  return {reinterpret_cast<const void*>(EncodeRotatedKernel<kChannels, kIsV, kBf16, Quantizer>),
          sizeof(RotatedShared<kChannels>) + Quantizer::kSharedBytes};
}

template <int kBits, int kChannels, bool kIsV>
RotatedKernel KernelOfType(bool is_bf16) {
  return is_bf16 ? Kernel<kBits, kChannels, kIsV, true>() : Kernel<kBits, kChannels, kIsV, false>();
}

template <int kBits>
RotatedKernel KernelOfBits(const RotatedCase& wanted) {
  if (wanted.group_channels == 64) {
    return wanted.is_v ? KernelOfType<kBits, 64, true>(wanted.is_bf16)
                       : KernelOfType<kBits, 64, false>(wanted.is_bf16);
  }
  return wanted.is_v ? KernelOfType<kBits, 128, true>(wanted.is_bf16)
                     : KernelOfType<kBits, 128, false>(wanted.is_bf16);
}

}  // namespace

RotatedKernel TurboKernel(Codec codec, const RotatedCase& wanted) {
  switch (codec) {
    case Codec::kTurbo2:
      return KernelOfBits<2>(wanted);
    case Codec::kTurbo3:
      return KernelOfBits<3>(wanted);
    case Codec::kTurbo4:
      return KernelOfBits<4>(wanted);
    default:
      return {};
  }
}

}  // namespace turbokv::cuda
