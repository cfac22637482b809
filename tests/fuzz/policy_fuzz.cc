// Policies from clients: any text is either refused with a message or expands to real codecs.
#include <cstddef>
#include <cstdint>

#include "kernels/format/policy.h"
#include "tests/fuzz/require.h"

namespace {

void Expand(const turbokv::Policy& policy, int layers) {
  using turbokv::Require;
  const absl::StatusOr<std::vector<turbokv::LayerCodecs>> expanded = policy.Expand(layers);
  if (!expanded.ok()) {
    Require(!expanded.status().message().empty(), "every error says something");
    return;
  }
  Require(expanded->size() == static_cast<size_t>(layers), "every layer has codecs");
  for (const turbokv::LayerCodecs& codecs : *expanded) {
    Require(turbokv::PageLayout::For(turbokv::ShapeOf(codecs, 8, 128)).ok(),
            "expanded codecs make a page");
  }
  Require(!turbokv::CanonicalPolicy(*expanded).empty(), "the canonical form is not empty");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<turbokv::Policy> policy = turbokv::Policy::Parse(text);
  if (!policy.ok()) {
    turbokv::Require(policy.status().message().size() < 1000, "errors stay short");
    return 0;
  }
  for (int layers : {1, 32, turbokv::kMaxLayers}) Expand(*policy, layers);
  return 0;
}
