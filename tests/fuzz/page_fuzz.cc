// Pages from the wire: parsing never reads past the input, and what parses can be decoded.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/format/page_header.h"
#include "kernels/reference/codec.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using turbokv::Require;
  const absl::StatusOr<turbokv::PageView> page =
      turbokv::ParsePage(absl::Span<const uint8_t>(data, size));
  if (!page.ok()) {
    Require(!page.status().message().empty(), "every error says something");
    return 0;
  }
  Require(page->bytes.data() == data && page->bytes.size() <= size, "the page lies in the input");
  Require(page->bytes.size() == page->layout.page_bytes, "the page has the size of its layout");
  turbokv::VerifyChecksum(*page).IgnoreError();

  const turbokv::PageShape& shape = page->layout.shape;
  const ptrdiff_t token_values = ptrdiff_t{shape.kv_heads} * shape.head_dim;
  std::vector<float> k(page->header.tokens * token_values);
  std::vector<float> v(k.size());
  turbokv::reference::DecodePage(*page, {k.data(), v.data(), token_values, shape.head_dim});
  return 0;
}
