// Attention of a prompt on K/V that went through the real codecs, page by page.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "examples/llama/attention.h"
#include "kernels/format/page_layout.h"
#include "kernels/format/policy.h"

namespace turbokv::bench {

enum class Exact {
  kNothing,  // cold: every token is quantized, those of an unfilled page as a partial page
  kTail,     // served: each query sees the last 128..255 tokens before it exactly
};

// The layouts of the pages that `policy` asks for, one a layer.
absl::StatusOr<std::vector<PageLayout>> LayoutsOf(const std::string& policy,
                                                  const examples::LlamaConfig& config);

// Codes, scales and K mean; without the header and the padding of sections. Mean over layers.
double BitsOfValues(const std::vector<PageLayout>& layouts);

class QuantizedAttention : public examples::LayerAttention {
 public:
  // Both arguments outlive this.
  QuantizedAttention(const examples::LlamaConfig& config, const std::vector<PageLayout>& layouts,
                     Exact exact)
      : config_(config), layouts_(layouts), exact_(exact) {}

  // Precondition: the batch begins at position 0.
  absl::Status Attend(const examples::LayerBatch& batch) override;

 private:
  absl::Status QuantizeBlock(const examples::LayerBatch& batch, int block);

  const examples::LlamaConfig& config_;
  const std::vector<PageLayout>& layouts_;
  const Exact exact_;
  std::vector<float> k_, v_;  // of this layer: quantized up to some block, exact after it
};

}  // namespace turbokv::bench
