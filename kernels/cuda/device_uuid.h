// A GPU's UUID as nvidia-smi writes it: "GPU-" and 36 characters. Two processes that see the same
// UUID mean the same GPU, whatever number each gives it (CUDA_VISIBLE_DEVICES, containers).
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace turbokv::cuda {

inline std::string FormatUuid(const cudaUUID_t& uuid) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    absl::StrAppend(&text, absl::Hex(static_cast<unsigned char>(uuid.bytes[i]), absl::kZeroPad2));
  }
  return text;
}

}  // namespace turbokv::cuda
