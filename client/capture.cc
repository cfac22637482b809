#include "client/capture.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "kernels/format/head_groups.h"
#include "kernels/format/page_layout.h"
#include "kernels/format/policy.h"

namespace turbokv {
namespace {

constexpr int64_t kMaxTokens = std::numeric_limits<int>::max();

std::string ShapeText(const Tensor& tensor) {
  return absl::StrCat("[", absl::StrJoin(tensor.shape, ", "), "]");
}

absl::StatusOr<ValueType> ValueTypeOf(TensorType type) {
  for (ValueType value_type : {ValueType::kBf16, ValueType::kFp16, ValueType::kFp32}) {
    if (TensorTypeOf(value_type) == type) return value_type;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("type ", std::string(TensorTypeName(type)), " is not F32, F16 or BF16"));
}

// Adds the tensor's name to an error about it.
absl::Status InTensor(const std::string& name, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("tensor ", name, ": ", status.message()));
}

class CaptureReader {
 public:
  explicit CaptureReader(SafetensorsFile file) { capture_.file = std::move(file); }

  absl::StatusOr<Capture> Read() {
    TURBOKV_ASSIGN_OR_RETURN(capture_.layers, CountLayers(capture_.file));
    capture_.layer.resize(capture_.layers);
    for (int n = 0; n < capture_.layers; ++n) {
      TURBOKV_ASSIGN_OR_RETURN(capture_.layer[n].k, ReadKv(n, "k"));
      TURBOKV_ASSIGN_OR_RETURN(capture_.layer[n].v, ReadKv(n, "v"));
      TURBOKV_RETURN_IF_ERROR(ReadQueries(n));
    }
    TURBOKV_RETURN_IF_ERROR(ReadIds());
    return std::move(capture_);
  }

 private:
  absl::StatusOr<Tensor> ReadKv(int n, const std::string& part) {
    const std::string name = LayerTensorName(n, part);
    const auto it = capture_.file.tensors().find(name);
    if (it == capture_.file.tensors().end()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " is missing"));
    }
    const Tensor& tensor = it->second;
    if (n == 0 && part == "k") {
      TURBOKV_RETURN_IF_ERROR(InTensor(name, TakeShape(tensor)));
    }
    TURBOKV_RETURN_IF_ERROR(InTensor(name, CheckLikeFirst(tensor)));
    return Aligned(tensor);
  }

  // The first tensor fixes what all others must agree with.
  absl::Status TakeShape(const Tensor& tensor) {
    if (tensor.shape.size() != 3) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape ", ShapeText(tensor), " is not [kv_heads, tokens, head_dim]"));
    }
    if (tensor.shape[0] < 1 || tensor.shape[0] > kMaxKvHeads) {
      return absl::InvalidArgumentError(
          absl::StrCat("kv_heads is ", tensor.shape[0], ", not in 1..", kMaxKvHeads));
    }
    if (tensor.shape[1] < 1 || tensor.shape[1] > kMaxTokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokens is ", tensor.shape[1], ", not in 1..", kMaxTokens));
    }
    if (tensor.shape[2] < 1 || tensor.shape[2] > kMaxHeadDim) {
      return absl::InvalidArgumentError(
          absl::StrCat("head_dim is ", tensor.shape[2], ", above ", kMaxHeadDim));
    }
    TURBOKV_RETURN_IF_ERROR(ValidateHeadDim(static_cast<int>(tensor.shape[2])));
    TURBOKV_ASSIGN_OR_RETURN(capture_.type, ValueTypeOf(tensor.type));
    capture_.kv_heads = static_cast<int>(tensor.shape[0]);
    capture_.tokens = tensor.shape[1];
    capture_.head_dim = static_cast<int>(tensor.shape[2]);
    return absl::OkStatus();
  }

  absl::Status CheckLikeFirst(const Tensor& tensor) const {
    const std::vector<int64_t> expected = {capture_.kv_heads, capture_.tokens, capture_.head_dim};
    if (tensor.shape != expected) {
      return absl::InvalidArgumentError(absl::StrCat("shape ", ShapeText(tensor), " differs from [",
                                                     absl::StrJoin(expected, ", "),
                                                     "] of layers.0.k"));
    }
    if (tensor.type != TensorTypeOf(capture_.type)) {
      return absl::InvalidArgumentError(
          absl::StrCat("type ", std::string(TensorTypeName(tensor.type)), " differs from ",
                       std::string(TensorTypeName(TensorTypeOf(capture_.type))), " of layers.0.k"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadQueries(int n) {
    const std::string name = LayerTensorName(n, "q");
    const auto it = capture_.file.tensors().find(name);
    if (it == capture_.file.tensors().end()) return absl::OkStatus();
    TURBOKV_RETURN_IF_ERROR(InTensor(name, CheckQueries(it->second)));
    capture_.layer[n].q = Aligned(it->second);
    return absl::OkStatus();
  }

  absl::Status CheckQueries(const Tensor& tensor) {
    TURBOKV_RETURN_IF_ERROR(ValueTypeOf(tensor.type).status());
    if (tensor.shape.size() != 3 || tensor.shape[2] != capture_.head_dim) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape ", ShapeText(tensor),
                       " is not [q_heads, last tokens, head_dim = ", capture_.head_dim, "]"));
    }
    const int64_t heads = tensor.shape[0];
    const int64_t rows = tensor.shape[1];
    if (heads < 1 || heads > kMaxTokens || heads % capture_.kv_heads != 0) {
      return absl::InvalidArgumentError(absl::StrCat(heads, " query heads are no multiple of the ",
                                                     capture_.kv_heads, " KV heads"));
    }
    if (rows < 1 || rows > capture_.tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat(rows, " query rows are not in 1..", capture_.tokens, ", the tokens"));
    }
    if (capture_.q_heads == 0) {
      capture_.q_heads = static_cast<int>(heads);
      capture_.q_tokens = static_cast<int>(rows);
    }
    if (heads != capture_.q_heads || rows != capture_.q_tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape ", ShapeText(tensor), " differs from [", capture_.q_heads, ", ",
                       capture_.q_tokens, ", ", capture_.head_dim, "] of an earlier layer"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadIds() {
    const auto it = capture_.file.tensors().find("token_ids");
    if (it == capture_.file.tensors().end()) return absl::OkStatus();
    absl::StatusOr<std::vector<int32_t>> ids = ReadTokenIds(it->second);
    TURBOKV_RETURN_IF_ERROR(InTensor("token_ids", ids.status()));
    if (static_cast<int64_t>(ids->size()) != capture_.tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor token_ids: ", ids->size(), " ids for ", capture_.tokens, " tokens"));
    }
    capture_.token_ids = *std::move(ids);
    return absl::OkStatus();
  }

  // Files promise no alignment, kernels need that of the element.
  Tensor Aligned(Tensor tensor) {
    const auto address = reinterpret_cast<uintptr_t>(tensor.bytes.data());
    if (address % TensorTypeBytes(tensor.type) == 0) return tensor;
    auto copy =
        std::make_shared<const std::vector<uint8_t>>(tensor.bytes.begin(), tensor.bytes.end());
    tensor.bytes = *copy;
    capture_.aligned_copies.push_back(std::move(copy));
    return tensor;
  }

  Capture capture_;
};

}  // namespace

TensorType TensorTypeOf(ValueType type) {
  switch (type) {
    case ValueType::kFp32:
      return TensorType::kF32;
    case ValueType::kFp16:
      return TensorType::kF16;
    case ValueType::kBf16:
      break;
  }
  return TensorType::kBf16;
}

std::string LayerTensorName(int layer, const std::string& part) {
  return absl::StrCat("layers.", layer, ".", part);
}

absl::StatusOr<int> CountLayers(const SafetensorsFile& file) {
  int layers = 0;
  for (const auto& [name, tensor] : file.tensors()) {
    const std::vector<absl::string_view> parts = absl::StrSplit(name, '.');
    if (parts.size() != 3 || parts[0] != "layers") continue;
    if (parts[2] != "k" && parts[2] != "v" && parts[2] != "q") continue;
    int layer = 0;
    if (!absl::SimpleAtoi(parts[1], &layer) || layer < 0 || layer >= kMaxLayers) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, ": its layer is not in 0..", kMaxLayers - 1));
    }
    layers = std::max(layers, layer + 1);
  }
  if (layers == 0) {
    return absl::InvalidArgumentError("no tensors layers.N.k and layers.N.v: not a capture");
  }
  return layers;
}

absl::StatusOr<std::vector<int32_t>> ReadTokenIds(const Tensor& tensor) {
  if (tensor.shape.size() != 1 ||
      (tensor.type != TensorType::kI32 && tensor.type != TensorType::kI64)) {
    return absl::InvalidArgumentError(
        absl::StrCat("type ", std::string(TensorTypeName(tensor.type)), " and shape ",
                     ShapeText(tensor), " are not those of token ids: I32 or I64, [tokens]"));
  }
  std::vector<int32_t> ids(tensor.shape[0]);
  const size_t id_bytes = TensorTypeBytes(tensor.type);
  for (size_t i = 0; i < ids.size(); ++i) {
    int64_t wide = 0;
    int32_t narrow = 0;
    if (tensor.type == TensorType::kI64) {
      std::memcpy(&wide, tensor.bytes.data() + i * id_bytes, sizeof(wide));
    } else {
      std::memcpy(&narrow, tensor.bytes.data() + i * id_bytes, sizeof(narrow));
      wide = narrow;
    }
    if (wide < 0 || wide > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(absl::StrCat("id ", i, " is ", wide, ", not in 0..2^31-1"));
    }
    ids[i] = static_cast<int32_t>(wide);
  }
  return ids;
}

KvView Capture::View(int layer_index) const {
  return View(layer_index, 0, static_cast<int>(tokens));
}

KvView Capture::View(int layer_index, int64_t first_token, int count) const {
  const size_t offset_bytes = static_cast<size_t>(first_token) * head_dim * ValueBytes(type);
  KvView view;
  view.type = type;
  view.k = layer[layer_index].k.bytes.data() + offset_bytes;
  view.v = layer[layer_index].v.bytes.data() + offset_bytes;
  view.token_stride = head_dim;
  view.head_stride = static_cast<ptrdiff_t>(tokens) * head_dim;
  view.tokens = count;
  return view;
}

absl::StatusOr<Capture> ReadCapture(SafetensorsFile file, const std::string& name) {
  absl::StatusOr<Capture> capture = CaptureReader(std::move(file)).Read();
  if (capture.ok()) return capture;
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", capture.status().message()));
}

absl::StatusOr<Capture> OpenCapture(const std::string& path) {
  TURBOKV_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(path));
  return ReadCapture(std::move(file), path);
}

}  // namespace turbokv
