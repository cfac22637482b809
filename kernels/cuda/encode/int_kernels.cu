#include "kernels/cuda/encode/int_kernel.cuh"
#include "kernels/cuda/encode/rotated_kernels.h"

namespace turbokv::cuda {
namespace {

template <int kChannels, bool kIsV, bool kBf16>
RotatedKernel Kernel() {
  using Quantizer = IntQuantizer<kChannels, kIsV>;
  return {reinterpret_cast<const void*>(EncodeRotatedKernel<kChannels, kIsV, kBf16, Quantizer>),
          sizeof(RotatedShared<kChannels>) + Quantizer::kSharedBytes};
}

template <int kChannels, bool kIsV>
RotatedKernel KernelOfType(bool is_bf16) {
  return is_bf16 ? Kernel<kChannels, kIsV, true>() : Kernel<kChannels, kIsV, false>();
}

}  // namespace

RotatedKernel IntKernel(Codec codec, const RotatedCase& wanted) {
  if (FactsOf(codec).scale_kind != ScaleKind::kGroupStepMinFp16) return {};
  if (wanted.group_channels == 64) {
    return wanted.is_v ? KernelOfType<64, true>(wanted.is_bf16)
                       : KernelOfType<64, false>(wanted.is_bf16);
  }
  return wanted.is_v ? KernelOfType<128, true>(wanted.is_bf16)
                     : KernelOfType<128, false>(wanted.is_bf16);
}

}  // namespace turbokv::cuda
