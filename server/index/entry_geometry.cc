#include "server/index/block_cache.h"

namespace turbokv {

std::shared_ptr<const EntryGeometry> EntryGeometry::ForBlock(const ResolvedSpec& spec) {
  auto geometry = std::make_shared<EntryGeometry>();
  geometry->spec_fingerprint = spec.fingerprint;
  geometry->kind = EntryKind::kBlock;
  geometry->pages_per_layer = 1;
  geometry->page_offsets_bytes.reserve(spec.layer_layouts.size() + 1);
  size_t offset_bytes = 0;
  for (const PageLayout& layout : spec.layer_layouts) {
    geometry->page_offsets_bytes.push_back(offset_bytes);
    offset_bytes += layout.page_bytes;
  }
  geometry->page_offsets_bytes.push_back(offset_bytes);
  return geometry;
}

std::shared_ptr<const EntryGeometry> EntryGeometry::ForTail(const ResolvedSpec& spec) {
  constexpr int kPagesPerLayer = 2;
  auto geometry = std::make_shared<EntryGeometry>();
  geometry->spec_fingerprint = spec.fingerprint;
  geometry->kind = EntryKind::kTail;
  geometry->pages_per_layer = kPagesPerLayer;
  const size_t pages = spec.layer_layouts.size() * kPagesPerLayer;
  for (size_t page = 0; page <= pages; ++page) {
    geometry->page_offsets_bytes.push_back(page * spec.tail_layout.page_bytes);
  }
  return geometry;
}

}  // namespace turbokv
