#include "kernels/cuda/encode/int_kernel.cuh"
#include "kernels/cuda/encode/rotated_kernels.h"

namespace turbokv::cuda {
namespace {

template <int kChannels, bool kIsV>
RotatedKernel Kernel() {
  using Quantizer = IntQuantizer<kChannels, kIsV>;
  return {reinterpret_cast<const void*>(EncodeRotatedKernel<kChannels, kIsV, Quantizer>),
          sizeof(RotatedShared<kChannels>) + Quantizer::kSharedBytes};
}

}  // namespace

RotatedKernel IntKernel(Codec codec, int group_channels, bool is_v) {
  if (FactsOf(codec).scale_kind != ScaleKind::kGroupStepMinFp16) return {};
  if (group_channels == 64) return is_v ? Kernel<64, true>() : Kernel<64, false>();
  return is_v ? Kernel<128, true>() : Kernel<128, false>();
}

}  // namespace turbokv::cuda
