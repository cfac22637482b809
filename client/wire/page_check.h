// Whether what a server hands over are the pages that were asked for.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "client/cache_spec.h"

namespace turbokv {

// What each layer of a fetch consists of.
struct LayerExtent {
  int64_t first_block = 0;
  int64_t blocks = 0;
  int tail_tokens = 0;  // 0: no tail pages

  int tail_pages() const { return (tail_tokens + kPageTokens - 1) / kPageTokens; }
};

// One page of a fetch: block first_block + index, or tail page `index`.
struct FetchedPage {
  int layer = 0;
  bool tail = false;
  int64_t index = 0;
};

// DATA_LOSS names the layer and the block of a page whose checksum fails; INTERNAL: a page that is
// not what the spec says. Untrusted bytes.
absl::Status CheckFetchedPage(const ResolvedSpec& spec, const LayerExtent& extent,
                              const FetchedPage& which, absl::Span<const uint8_t> bytes);

}  // namespace turbokv
