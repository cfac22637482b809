#include "client/cli/layer_pages.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/codec.h"
#include "kernels/format/small_floats.h"

namespace turbokv::cli {

LayerValues::LayerValues(int kv_heads_in, int64_t tokens_in, int head_dim_in)
    : kv_heads(kv_heads_in),
      tokens(tokens_in),
      head_dim(head_dim_in),
      k(static_cast<size_t>(kv_heads_in) * tokens_in * head_dim_in),
      v(k.size()) {}

absl::StatusOr<std::vector<PageBytes>> EncodeLayer(const Capture& capture, int layer,
                                                   const LayerCodecs& codecs) {
  TURBOKV_ASSIGN_OR_RETURN(const PageLayout layout,
                           PageLayout::For(ShapeOf(codecs, capture.kv_heads, capture.head_dim)));
  std::vector<PageBytes> pages;
  for (int64_t first = 0; first < capture.tokens; first += kPageTokens) {
    const int count = static_cast<int>(std::min<int64_t>(kPageTokens, capture.tokens - first));
    PageIdentity identity;
    identity.layer = static_cast<uint32_t>(layer);
    identity.first_token = static_cast<uint64_t>(first);
    PageBytes page(layout.page_bytes);
    const absl::Status status =
        cpu::EncodePage(layout, identity, capture.View(layer, first, count), absl::MakeSpan(page));
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat("layer ", layer, ", page of tokens ", first, "..",
                                       first + count - 1, ": ", status.message()));
    }
    pages.push_back(std::move(page));
  }
  return pages;
}

absl::Status DecodeInto(absl::Span<const uint8_t> page, int64_t first_token, LayerValues* values) {
  TURBOKV_ASSIGN_OR_RETURN(const PageView view, ParsePage(page));
  const PageHeader& header = view.header;
  if (header.kv_heads != values->kv_heads || header.head_dim != values->head_dim) {
    return absl::InvalidArgumentError(absl::StrCat("page of ", header.kv_heads, " KV heads of ",
                                                   header.head_dim, " where there are ",
                                                   values->kv_heads, " of ", values->head_dim));
  }
  if (first_token < 0 || first_token > values->tokens - header.tokens) {
    return absl::InvalidArgumentError(absl::StrCat("page of ", header.tokens, " tokens from ",
                                                   first_token, " on, of ", values->tokens,
                                                   " tokens"));
  }
  const size_t offset = static_cast<size_t>(first_token) * values->head_dim;
  KvOutput output;
  output.k = values->k.data() + offset;
  output.v = values->v.data() + offset;
  output.token_stride = values->head_dim;
  output.head_stride = static_cast<ptrdiff_t>(values->tokens) * values->head_dim;
  cpu::DecodePage(view, output);
  return absl::OkStatus();
}

PageBytes ValueBytesOf(const std::vector<float>& values, TensorType type) {
  PageBytes bytes(values.size() * TensorTypeBytes(type));
  if (type == TensorType::kF32) {
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits =
        type == TensorType::kBf16 ? FloatToBf16(values[i]) : FloatToFp16(values[i]);
    std::memcpy(bytes.data() + 2 * i, &bits, sizeof(bits));
  }
  return bytes;
}

}  // namespace turbokv::cli
