#include "tests/unit/client/cuda/in_place_blocks.h"

#include "absl/types/span.h"
#include "base/check.h"
#include "kernels/cpu/codec.h"
#include "kernels/format/page_header.h"
#include "tests/unit/kernels/cpu/test_values.h"

namespace turbokv::testing {
namespace {

constexpr uint32_t kContents = 4;

}  // namespace

std::shared_ptr<const ResolvedSpec> InPlaceSpec() {
  CacheSpec spec;
  spec.model_id = "in place";
  spec.model_revision = "main";
  spec.layers = 32;
  spec.kv_heads = 8;
  spec.head_dim = 128;
  spec.policy = "k=turbo4,v=turbo3";
  auto resolved = ResolveSpec(spec);
  Check(resolved.ok(), "the test's spec is valid");
  return std::make_shared<const ResolvedSpec>(*std::move(resolved));
}

BlockMaker::BlockMaker(std::shared_ptr<const ResolvedSpec> spec) : spec_(std::move(spec)) {
  const PageLayout& layout = spec_->layer_layouts[0];
  for (const PageLayout& other : spec_->layer_layouts) {
    Check(other.shape == layout.shape, "layers of the test's spec are alike");
  }
  for (uint32_t seed = 1; seed <= kContents; ++seed) {
    const TestKv kv(ValueType::kBf16, KvOrder::kNhd, kPageTokens, layout.shape.kv_heads,
                    layout.shape.head_dim, GaussianValues(seed));
    auto& page = contents_.emplace_back(layout.page_bytes);
    Check(cpu::EncodePage(layout, {}, kv.view(), absl::MakeSpan(page)).ok(), "it is encoded");
  }
}

std::vector<uint8_t> BlockMaker::Page(int layer, int64_t block) const {
  std::vector<uint8_t> page = contents_[static_cast<size_t>(block) % contents_.size()];
  const auto parsed = ParsePage(page);
  Check(parsed.ok(), "what was encoded is a page");
  const PageHeader header = parsed->header;
  SealPage(spec_->layer_layouts[layer],
           {.layer = static_cast<uint32_t>(layer),
            .generation = 0,
            .first_token = static_cast<uint64_t>(block * kPageTokens),
            .spec_id = spec_->spec_id()},
           header.tokens, header.k_exponent, header.v_exponent, absl::MakeSpan(page));
  return page;
}

std::vector<uint8_t> BlockMaker::Block(int64_t block) const {
  std::vector<uint8_t> bytes;
  bytes.reserve(spec_->block_bytes());
  for (int layer = 0; layer < spec_->spec.layers; ++layer) {
    const std::vector<uint8_t> page = Page(layer, block);
    bytes.insert(bytes.end(), page.begin(), page.end());
  }
  return bytes;
}

}  // namespace turbokv::testing
