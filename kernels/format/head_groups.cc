#include "kernels/format/head_groups.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace turbokv {

absl::Status ValidateHeadDim(int head_dim) {
  if (std::find(kHeadDims.begin(), kHeadDims.end(), head_dim) != kHeadDims.end()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "head_dim ", head_dim, " is not supported; supported: ", absl::StrJoin(kHeadDims, ", ")));
}

HeadGroups GroupsOf(int head_dim) {
  if (head_dim == 64) return {1, {64, 0}};
  if (head_dim <= 128) return {1, {128, 0}};
  if (head_dim == 192) return {2, {128, 64}};
  return {2, {128, 128}};
}

int PaddedHeadDim(Codec codec, int head_dim) {
  if (TraitsOf(codec).rotated) return GroupsOf(head_dim).padded_dim();
  return (head_dim + kTileChannels - 1) / kTileChannels * kTileChannels;
}

}  // namespace turbokv
