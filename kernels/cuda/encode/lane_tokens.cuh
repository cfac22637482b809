// Which tokens of a warp's 32 a lane has a share of: 4 (K, by n) or 8 (V, by 4 h + i).
#pragma once

#include "kernels/cuda/primitives/host_device.cuh"

namespace turbokv::cuda {

template <bool kIsV>
struct LaneTokens {
  static constexpr int kSteps = 4;
  static constexpr int kPerStep = kIsV ? 2 : 1;
  static constexpr int kCount = kSteps * kPerStep;
  // Lanes that share a token are these strides apart.
  static constexpr int kFirstStride = kIsV ? 4 : 1;
  static constexpr int kEndStride = kIsV ? 32 : 4;
  static constexpr int kSharers = kEndStride / kFirstStride;
  static_assert(kSharers == kCount, "every sharer can take one of the tokens");
  static TURBOKV_HOST_DEVICE int Own(int lane) { return lane / kFirstStride % kSharers; }

  // Which of a step's tokens the value y[J][i] is of (fragments.cuh).
  static constexpr int InStep(int i) { return kIsV ? i & 1 : 0; }

  // The token's number among the 32, and back.
  static TURBOKV_HOST_DEVICE int Token(int lane, int index) {
    const int g = lane >> 2;
    if (kIsV) return 16 * (index >> 2) + 4 * (lane & 3) + (index & 3);
    return 16 * (index >> 1) + 4 * (g >> 1) + 2 * (index & 1) + (g & 1);
  }
  static TURBOKV_HOST_DEVICE int Index(int token) {
    if (kIsV) return 4 * (token >> 4) + (token & 3);
    return 2 * (token >> 4) + (token >> 1 & 1);
  }
  static TURBOKV_HOST_DEVICE bool Shares(int lane, int token) {
    if (kIsV) return (lane & 3) == (token >> 2 & 3);
    return lane >> 2 == 2 * (token >> 2 & 3) + (token & 1);
  }
};

}  // namespace turbokv::cuda
