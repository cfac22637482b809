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

// What kernels differ in, besides the codec. Values are bf16 or fp16.
struct RotatedCase {
  int group_channels;
  bool is_v;
  bool is_bf16;
};
RotatedKernel TurboKernel(Codec codec, const RotatedCase& wanted);
RotatedKernel IntKernel(Codec codec, const RotatedCase& wanted);

}  // namespace turbokv::cuda
