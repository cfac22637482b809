#include "client/cli/llama_file.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cli/layer_pages.h"
#include "kernels/format/llama_blocks.h"

namespace turbokv::cli {
namespace {

constexpr int kBlockValues = 128;
constexpr char kTokenIds[] = "token_ids";

struct Part {
  const char* name;
  PageTensor tensor;
};
constexpr Part kParts[] = {{"k", PageTensor::kK}, {"v", PageTensor::kV}};

Codec CodecOf(const LayerCodecs& codecs, const Part& part) {
  return part.tensor == PageTensor::kK ? codecs.k : codecs.v;
}

// Tensors under construction and the memory that they borrow.
struct OutputFile {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
  std::vector<PageBytes> storage;
  int64_t kv_bytes = 0;

  void AddKv(const std::string& name, TensorType type, std::vector<int64_t> shape,
             PageBytes bytes) {
    kv_bytes += static_cast<int64_t>(bytes.size());
    storage.push_back(std::move(bytes));
    tensors[name] = {type, std::move(shape), storage.back()};
  }

  void CopyTokenIds(const SafetensorsFile& file) {
    const auto it = file.tensors().find(kTokenIds);
    if (it != file.tensors().end()) tensors[kTokenIds] = it->second;
  }
};

absl::Status InTensor(const std::string& name, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("tensor ", name, ": ", status.message()));
}

// Bytes of one token's head vector.
absl::StatusOr<size_t> VectorBytes(Codec codec, int head_dim) {
  TURBOKV_ASSIGN_OR_RETURN(const size_t block_bytes, LlamaBlockBytes(codec));
  if (head_dim % kBlockValues != 0) {
    return absl::InvalidArgumentError(absl::StrCat("head_dim ", head_dim, " is no multiple of ",
                                                   kBlockValues,
                                                   ", the values of a llama.cpp block"));
  }
  return block_bytes * (head_dim / kBlockValues);
}

// [kv_heads][tokens][vector_bytes] of a layer's K or V.
absl::StatusOr<PageBytes> BlocksOfPages(const std::vector<PageBytes>& pages, const Part& part,
                                        const Capture& capture, size_t vector_bytes) {
  PageBytes blocks(vector_bytes * capture.tokens * capture.kv_heads);
  int64_t first_token = 0;
  for (const PageBytes& bytes : pages) {
    TURBOKV_ASSIGN_OR_RETURN(const PageView page, ParsePage(bytes));
    for (int head = 0; head < capture.kv_heads; ++head) {
      uint8_t* out = blocks.data() + (head * capture.tokens + first_token) * vector_bytes;
      TURBOKV_RETURN_IF_ERROR(PageToLlamaBlocks(
          page, part.tensor, head, absl::MakeSpan(out, page.header.tokens * vector_bytes)));
    }
    first_token += page.header.tokens;
  }
  return blocks;
}

absl::Status ConvertLayer(const Capture& capture, int layer, const LayerCodecs& codecs,
                          OutputFile* output) {
  for (const Part& part : kParts) {
    TURBOKV_RETURN_IF_ERROR(
        InTensor(LayerTensorName(layer, part.name),
                 VectorBytes(CodecOf(codecs, part), capture.head_dim).status()));
  }
  TURBOKV_ASSIGN_OR_RETURN(const std::vector<PageBytes> pages, EncodeLayer(capture, layer, codecs));
  for (const Part& part : kParts) {
    const std::string name = LayerTensorName(layer, part.name);
    const Codec codec = CodecOf(codecs, part);
    TURBOKV_ASSIGN_OR_RETURN(const size_t vector_bytes, VectorBytes(codec, capture.head_dim));
    absl::StatusOr<PageBytes> blocks = BlocksOfPages(pages, part, capture, vector_bytes);
    TURBOKV_RETURN_IF_ERROR(InTensor(name, blocks.status()));
    output->AddKv(name, TensorType::kU8,
                  {capture.kv_heads, capture.tokens, static_cast<int64_t>(vector_bytes)},
                  *std::move(blocks));
    output->metadata[name] = std::string(CodecName(codec));
  }
  return absl::OkStatus();
}

// A tensor of blocks, and what is in them.
struct BlockTensor {
  Tensor tensor;
  Codec codec = Codec::kTurbo4;
  int head_dim = 0;
};

// The codec whose vectors have `vector_bytes` bytes at a supported head_dim: no two agree.
absl::StatusOr<Codec> CodecFromVectorBytes(int64_t vector_bytes) {
  for (Codec codec : {Codec::kTurbo2, Codec::kTurbo3, Codec::kTurbo4}) {
    for (int head_dim = kBlockValues; head_dim <= kMaxHeadDim; head_dim += kBlockValues) {
      TURBOKV_ASSIGN_OR_RETURN(const size_t expected, VectorBytes(codec, head_dim));
      if (static_cast<int64_t>(expected) == vector_bytes) return codec;
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat(vector_bytes,
                   " bytes a vector are no whole number of turbo2 (34), turbo3 (50) "
                   "or turbo4 (66) blocks for head_dim 128 or 256"));
}

absl::StatusOr<int> HeadDimOf(Codec codec, int64_t vector_bytes) {
  TURBOKV_ASSIGN_OR_RETURN(const size_t block_bytes, LlamaBlockBytes(codec));
  const int64_t size = static_cast<int64_t>(block_bytes);
  if (vector_bytes < size || vector_bytes % size != 0 ||
      vector_bytes / size * kBlockValues > kMaxHeadDim) {
    return absl::InvalidArgumentError(absl::StrCat(vector_bytes, " bytes a vector are not 1 or 2 ",
                                                   std::string(CodecName(codec)), " blocks of ",
                                                   block_bytes, " bytes"));
  }
  return static_cast<int>(vector_bytes / size * kBlockValues);
}

absl::StatusOr<BlockTensor> OpenBlocks(const SafetensorsFile& file, const std::string& name,
                                       const std::optional<Codec>& given) {
  BlockTensor blocks;
  TURBOKV_ASSIGN_OR_RETURN(blocks.tensor, file.Get(name));
  const std::vector<int64_t>& shape = blocks.tensor.shape;
  if (blocks.tensor.type != TensorType::kU8 || shape.size() != 3 || shape[0] < 1 ||
      shape[0] > kMaxKvHeads || shape[1] < 1) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", name,
                                                   ": not U8 [kv_heads, tokens, bytes] with 1..",
                                                   kMaxKvHeads, " KV heads and a token"));
  }
  const auto recorded = file.metadata().find(name);
  absl::StatusOr<Codec> codec = CodecFromVectorBytes(shape[2]);
  if (given) {
    codec = *given;
  } else if (recorded != file.metadata().end()) {
    codec = CodecFromName(recorded->second);
  }
  TURBOKV_RETURN_IF_ERROR(InTensor(name, codec.status()));
  blocks.codec = *codec;
  absl::StatusOr<int> head_dim = HeadDimOf(*codec, shape[2]);
  TURBOKV_RETURN_IF_ERROR(InTensor(name, head_dim.status()));
  blocks.head_dim = *head_dim;
  return blocks;
}

// Both tensors of a layer, which agree in everything but the codec.
absl::Status CheckPair(int layer, const BlockTensor& k, const BlockTensor& v) {
  if (k.tensor.shape[0] != v.tensor.shape[0] || k.tensor.shape[1] != v.tensor.shape[1] ||
      k.head_dim != v.head_dim) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", layer, ": K is ", k.tensor.shape[0], " heads x ", k.tensor.shape[1], " tokens x ",
        k.head_dim, ", V is ", v.tensor.shape[0], " x ", v.tensor.shape[1], " x ", v.head_dim));
  }
  return absl::OkStatus();
}

// Copies tokens [first, first + count) of all heads into a page that is then sealed.
absl::Status FillPage(const PageLayout& layout, const BlockTensor& blocks, const Part& part,
                      int64_t first, int count, PageBytes* page) {
  const int64_t tokens = blocks.tensor.shape[1];
  const size_t vector_bytes = static_cast<size_t>(blocks.tensor.shape[2]);
  for (int head = 0; head < layout.shape.kv_heads; ++head) {
    TURBOKV_RETURN_IF_ERROR(LlamaBlocksToSlice(
        layout, part.tensor, count,
        blocks.tensor.bytes.subspan((head * tokens + first) * vector_bytes, count * vector_bytes),
        absl::MakeSpan(page->data() + layout.SliceOffset(head), layout.slice_bytes)));
  }
  return absl::OkStatus();
}

absl::StatusOr<LayerValues> DecodeBlocks(const BlockTensor& k, const BlockTensor& v) {
  const int kv_heads = static_cast<int>(k.tensor.shape[0]);
  const int64_t tokens = k.tensor.shape[1];
  TURBOKV_ASSIGN_OR_RETURN(const PageLayout layout, PageLayout::For({kv_heads, k.head_dim, k.codec,
                                                                     v.codec, /*k_mean=*/false}));
  LayerValues values(kv_heads, tokens, k.head_dim);
  for (int64_t first = 0; first < tokens; first += kPageTokens) {
    const int count = static_cast<int>(std::min<int64_t>(kPageTokens, tokens - first));
    PageBytes page(layout.page_bytes);
    TURBOKV_RETURN_IF_ERROR(FillPage(layout, k, kParts[0], first, count, &page));
    TURBOKV_RETURN_IF_ERROR(FillPage(layout, v, kParts[1], first, count, &page));
    SealPage(layout, PageIdentity{}, count, 0, 0, absl::MakeSpan(page));
    TURBOKV_RETURN_IF_ERROR(DecodeInto(page, first, &values));
  }
  return values;
}

}  // namespace

absl::StatusOr<ConvertSummary> WriteLlamaFile(const Capture& capture,
                                              std::vector<LayerCodecs> codecs,
                                              const std::string& path,
                                              const std::function<void()>& on_layer_done) {
  OutputFile output;
  output.metadata["format"] = "llama.cpp";
  output.metadata["head_dim"] = absl::StrCat(capture.head_dim);
  for (int layer = 0; layer < capture.layers; ++layer) {
    codecs[layer].k_mean = false;
    TURBOKV_RETURN_IF_ERROR(ConvertLayer(capture, layer, codecs[layer], &output));
    on_layer_done();
  }
  output.CopyTokenIds(capture.file);
  TURBOKV_RETURN_IF_ERROR(WriteSafetensors(path, output.tensors, output.metadata));
  ConvertSummary summary{capture.layers, capture.kv_heads, capture.head_dim, capture.tokens};
  summary.input_bytes = 2 * capture.layers * static_cast<int64_t>(capture.layer[0].k.bytes.size());
  summary.output_bytes = output.kv_bytes;
  summary.codecs = std::move(codecs);
  return summary;
}

absl::StatusOr<ConvertSummary> ReadLlamaFile(const SafetensorsFile& file,
                                             const std::optional<Policy>& policy,
                                             const std::string& path,
                                             const std::function<void()>& on_layer_done) {
  ConvertSummary summary;
  TURBOKV_ASSIGN_OR_RETURN(summary.layers, CountLayers(file));
  std::vector<LayerCodecs> given;
  if (policy) {
    TURBOKV_ASSIGN_OR_RETURN(given, policy->Expand(summary.layers));
  }
  OutputFile output;
  for (int layer = 0; layer < summary.layers; ++layer) {
    BlockTensor blocks[2];
    for (int i = 0; i < 2; ++i) {
      std::optional<Codec> codec;
      if (policy) codec = CodecOf(given[layer], kParts[i]);
      TURBOKV_ASSIGN_OR_RETURN(blocks[i],
                               OpenBlocks(file, LayerTensorName(layer, kParts[i].name), codec));
      summary.input_bytes += static_cast<int64_t>(blocks[i].tensor.bytes.size());
    }
    TURBOKV_RETURN_IF_ERROR(CheckPair(layer, blocks[0], blocks[1]));
    TURBOKV_ASSIGN_OR_RETURN(LayerValues values, DecodeBlocks(blocks[0], blocks[1]));
    if (layer > 0 && (values.kv_heads != summary.kv_heads || values.tokens != summary.tokens ||
                      values.head_dim != summary.head_dim)) {
      return absl::InvalidArgumentError(
          absl::StrCat("layer ", layer, ": its shape differs from that of the layers before it"));
    }
    const std::vector<int64_t> shape = {values.kv_heads, values.tokens, values.head_dim};
    output.AddKv(LayerTensorName(layer, "k"), TensorType::kF32, shape,
                 ValueBytesOf(values.k, TensorType::kF32));
    output.AddKv(LayerTensorName(layer, "v"), TensorType::kF32, shape,
                 ValueBytesOf(values.v, TensorType::kF32));
    summary.kv_heads = values.kv_heads;
    summary.head_dim = values.head_dim;
    summary.tokens = values.tokens;
    summary.codecs.push_back({blocks[0].codec, blocks[1].codec, /*k_mean=*/false});
    on_layer_done();
  }
  output.CopyTokenIds(file);
  TURBOKV_RETURN_IF_ERROR(WriteSafetensors(path, output.tensors, output.metadata));
  summary.output_bytes = output.kv_bytes;
  return summary;
}

}  // namespace turbokv::cli
