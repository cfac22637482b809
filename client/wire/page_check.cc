#include "client/wire/page_check.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/format/page_header.h"

namespace turbokv {

absl::Status CheckFetchedPage(const ResolvedSpec& spec, const LayerExtent& extent,
                              const FetchedPage& which, absl::Span<const uint8_t> bytes) {
  const std::string where =
      which.tail
          ? absl::StrCat("layer ", which.layer, ", tail page ", which.index)
          : absl::StrCat("layer ", which.layer, ", block ", extent.first_block + which.index);
  const PageLayout& layout = which.tail ? spec.tail_layout : spec.layer_layouts[which.layer];
  absl::StatusOr<PageView> page = ParsePage(bytes);
  // A header that cannot be parsed and a checksum that fails are the same damage.
  const absl::Status checksum = page.ok() ? VerifyChecksum(*page) : page.status();
  if (!checksum.ok()) {
    return absl::DataLossError(absl::StrCat(where, " arrived damaged: ", checksum.message()));
  }
  const int tokens =
      which.tail ? std::min<int64_t>(kPageTokens, extent.tail_tokens - which.index * kPageTokens)
                 : kPageTokens;
  const PageHeader& header = page->header;
  if (page->layout.shape != layout.shape || header.layer != static_cast<uint32_t>(which.layer) ||
      header.spec_id != spec.spec_id() || header.tokens != tokens) {
    return absl::InternalError(
        absl::StrCat(where, " is not what was asked for: layer ", header.layer, ", ", header.tokens,
                     " tokens, spec id ", absl::Hex(header.spec_id), "; expected layer ",
                     which.layer, ", ", tokens, " tokens, spec id ", absl::Hex(spec.spec_id()),
                     " and the spec's codecs and shape"));
  }
  return absl::OkStatus();
}

}  // namespace turbokv
