// How the channels of a head are divided into rotated groups, and padded.
//
//   head_dim   rotated codecs (turboN, intN)      unrotated codecs
//   64         one group of 64                    64
//   80         one group of 128, 48 zeros         96
//   96         one group of 128, 32 zeros         96
//   112        one group of 128, 16 zeros         128
//   128        one group of 128                   128
//   192        a group of 128 and one of 64       192
//   256        two groups of 128                  256
//
// Zeros are appended after the head's last channel. What the padding costs: docs/formats/codecs.md.
#pragma once

#include <array>

#include "absl/status/status.h"
#include "kernels/format/codec.h"

namespace turbokv {

inline constexpr std::array<int, 7> kHeadDims = {64, 80, 96, 112, 128, 192, 256};
inline constexpr int kMaxHeadDim = 256;
inline constexpr int kMaxGroups = 2;
inline constexpr int kMaxGroupChannels = 128;

struct HeadGroups {
  int count = 0;
  std::array<int, kMaxGroups> channels{};  // 64 or 128 each

  int padded_dim() const { return channels[0] + channels[1]; }
  int begin(int group) const { return group == 0 ? 0 : channels[0]; }
};

// INVALID_ARGUMENT names the supported head dimensions.
absl::Status ValidateHeadDim(int head_dim);

// Precondition: ValidateHeadDim(head_dim).ok().
HeadGroups GroupsOf(int head_dim);

// Channels that `codec` stores for a head of `head_dim`: a multiple of 32.
// Precondition: ValidateHeadDim(head_dim).ok().
int PaddedHeadDim(Codec codec, int head_dim);

}  // namespace turbokv
