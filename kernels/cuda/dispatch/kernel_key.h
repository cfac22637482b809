// What tells one GPU kernel from another.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/cuda/dispatch/gpu_arch.h"
#include "kernels/format/codec_id.h"

namespace turbokv::cuda {

enum class Operation : uint8_t {
  kAttentionPages,  // attention on packed pages
  kEncode,
  kDequantize,
};

struct KernelKey {
  Operation operation = Operation::kAttentionPages;
  // An operation on one tensor at a time has one codec: both are it.
  Codec k = Codec::kBf16;
  Codec v = Codec::kBf16;
  int head_dim = 0;
  int row_tiles = 0;  // of queries that a warp works on at once; 0 where there are no queries
  GpuArch arch = GpuArch::kAny;

  bool operator==(const KernelKey&) const = default;

  // "attention_pages k=turbo3 v=int5 head_dim=128 row_tiles=1 sm_90a"; no row_tiles if 0, no
  // architecture if any.
  std::string ToString() const;
};

}  // namespace turbokv::cuda
