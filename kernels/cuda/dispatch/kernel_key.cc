#include "kernels/cuda/dispatch/kernel_key.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/format/codec.h"

namespace turbokv::cuda {
namespace {

absl::string_view OperationName(Operation operation) {
  switch (operation) {
    case Operation::kAttentionPages:
      return "attention_pages";
    case Operation::kEncode:
      return "encode";
    case Operation::kDequantize:
      return "dequantize";
  }
  return "";
}

}  // namespace

std::string KernelKey::ToString() const {
  std::string text = absl::StrCat(OperationName(operation), " k=", CodecName(k),
                                  " v=", CodecName(v), " head_dim=", head_dim);
  if (row_tiles != 0) absl::StrAppend(&text, " row_tiles=", row_tiles);
  if (arch != GpuArch::kAny) absl::StrAppend(&text, " ", GpuArchName(arch));
  return text;
}

}  // namespace turbokv::cuda
