// The signs of the rotation (kRotationSigns1 and kRotationSigns2 of kernels/format/rotation.h) as
// words: bit c % 32 of word c / 32 is set where sign c is negative.
#pragma once

#include "kernels/cuda/primitives/host_device.cuh"

namespace turbokv::cuda {

TURBOKV_HOST_DEVICE constexpr uint32_t FirstSigns(int word) {
  return word == 0 ? 0xe46a0359u : word == 1 ? 0x42f85949u : word == 2 ? 0xa4c63bbbu : 0x49f250a9u;
}
TURBOKV_HOST_DEVICE constexpr uint32_t SecondSigns(int word) {
  return word == 0 ? 0x16acee90u : word == 1 ? 0x3f628fdcu : word == 2 ? 0xb7a5357au : 0xbea56562u;
}

}  // namespace turbokv::cuda
