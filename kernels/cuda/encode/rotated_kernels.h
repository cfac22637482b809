// The kernels for turboN and intN, as launchers see them.
#pragma once

#include <cstddef>

#include "kernels/format/codec_id.h"

namespace turbokv::cuda {

struct RotatedKernel {
  const void* function = nullptr;  // null: none for this codec
  size_t shared_bytes = 0;
};

// A block of kEncodeBlockThreads encodes one group of one head of a page.
inline constexpr int kEncodeBlockThreads = 128;

RotatedKernel TurboKernel(Codec codec, int group_channels, bool is_v);
RotatedKernel IntKernel(Codec codec, int group_channels, bool is_v);

}  // namespace turbokv::cuda
