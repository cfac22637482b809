// Which channels a lane holds while a warp transforms a group, pass after pass.
#pragma once

#include "kernels/cuda/primitives/host_device.cuh"

namespace turbokv::cuda {

// Of a group of kPerLane x 32 channels. Pass p does the stages whose strides are the bits of
// channels from p log2(kPerLane) on; a lane's values differ in those bits. The last pass may have
// bits that the one before has done.
template <int kPerLane>
struct TransformPasses {
  static_assert(kPerLane == 2 || kPerLane == 4);
  static constexpr int kBits = kPerLane == 2 ? 1 : 2;  // of a pass
  static constexpr int kChannelBits = 5 + kBits;
  static constexpr int kCount = (kChannelBits + kBits - 1) / kBits;

  static constexpr TURBOKV_HOST_DEVICE int FirstBit(int pass) {
    return pass * kBits < kChannelBits - kBits ? pass * kBits : kChannelBits - kBits;
  }
  // Of the pass's stages, in units of a lane's values.
  static constexpr TURBOKV_HOST_DEVICE int FirstStride(int pass) {
    return 1 << (pass * kBits - FirstBit(pass));
  }
  static TURBOKV_HOST_DEVICE int Channel(int pass, int lane, int k) {
    const int first = FirstBit(pass);
    return (lane & ((1 << first) - 1)) | k << first | lane >> first << (first + kBits);
  }
};

}  // namespace turbokv::cuda
