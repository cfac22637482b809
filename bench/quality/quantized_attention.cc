#include "bench/quality/quantized_attention.h"

#include <algorithm>

#include "absl/status/status.h"
#include "base/status_macros.h"
#include "client/cache_spec.h"
#include "kernels/cpu/codec.h"
#include "kernels/format/page_header.h"

namespace turbokv::bench {

absl::StatusOr<std::vector<PageLayout>> LayoutsOf(const std::string& policy,
                                                  const examples::LlamaConfig& config) {
  TURBOKV_ASSIGN_OR_RETURN(const Policy parsed, Policy::Parse(policy));
  TURBOKV_ASSIGN_OR_RETURN(const std::vector<LayerCodecs> codecs, parsed.Expand(config.layers));
  std::vector<PageLayout> layouts;
  for (const LayerCodecs& layer : codecs) {
    TURBOKV_ASSIGN_OR_RETURN(PageLayout layout,
                             PageLayout::For(ShapeOf(layer, config.kv_heads, config.head_dim)));
    layouts.push_back(layout);
  }
  return layouts;
}

double BitsOfValues(const std::vector<PageLayout>& layouts) {
  double bits = 0;
  double values = 0;
  for (const PageLayout& layout : layouts) {
    for (const Section& section :
         {layout.k_codes, layout.v_codes, layout.k_scales, layout.v_scales, layout.k_mean}) {
      bits += 8.0 * static_cast<double>(section.size_bytes);
    }
    values += 2.0 * kPageTokens * layout.shape.head_dim;
  }
  return bits / values;
}

absl::Status QuantizedAttention::QuantizeBlock(const examples::LayerBatch& batch, int block) {
  const int first = block * kPageTokens;
  const int tokens = std::min(kPageTokens, batch.tokens - first);
  const ptrdiff_t offset = ptrdiff_t{first} * config_.kv_dim();
  const PageLayout& layout = layouts_[batch.layer];
  const PageIdentity identity{.layer = static_cast<uint32_t>(batch.layer),
                              .first_token = static_cast<uint64_t>(first)};
  std::vector<uint8_t> page(layout.page_bytes);
  // Float32, not bf16: rounding first would add its own error.
  TURBOKV_RETURN_IF_ERROR(
      cpu::EncodePage(layout, identity,
                      NhdView(ValueType::kFp32, batch.k + offset, batch.v + offset, tokens,
                              config_.kv_heads, config_.head_dim),
                      absl::MakeSpan(page)));
  TURBOKV_ASSIGN_OR_RETURN(const PageView view, ParsePage(page));
  cpu::DecodePage(view,
                  {k_.data() + offset, v_.data() + offset, config_.kv_dim(), config_.head_dim});
  return absl::OkStatus();
}

absl::Status QuantizedAttention::Attend(const examples::LayerBatch& batch) {
  const size_t values = static_cast<size_t>(batch.tokens) * config_.kv_dim();
  k_.assign(batch.k, batch.k + values);
  v_.assign(batch.v, batch.v + values);
  int quantized_blocks = 0;
  for (int row = 0; row < batch.tokens;) {
    const int wanted =
        static_cast<int>(exact_ == Exact::kTail ? PackedBlocks(row + 1)
                                                : (batch.tokens + kPageTokens - 1) / kPageTokens);
    for (; quantized_blocks < wanted; ++quantized_blocks) {
      TURBOKV_RETURN_IF_ERROR(QuantizeBlock(batch, quantized_blocks));
    }
    // Rows up to the next that completes a page, and so packs another, see the same K/V.
    const int end = std::min((row + 1) / kPageTokens * kPageTokens + kPageTokens - 1, batch.tokens);
    AttendRows(config_, batch, {k_.data(), v_.data()}, row, end - row);
    row = end;
  }
  return absl::OkStatus();
}

}  // namespace turbokv::bench
