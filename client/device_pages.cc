#include "client/device_pages.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

static_assert(kPageIdBytes % kSectionAlignmentBytes == 0, "kernels take it as a stride");

}  // namespace

absl::StatusOr<DevicePages> DevicePages::Map(MappedPool* pool, uint64_t lease_id,
                                             std::shared_ptr<const ResolvedSpec> spec,
                                             std::vector<SharedPlace> places) {
  DevicePages pages(pool, std::move(spec), std::move(places));
  TURBOKV_RETURN_IF_ERROR(pages.MapSlabs(lease_id));
  return pages;
}

DevicePages::DevicePages(MappedPool* pool, std::shared_ptr<const ResolvedSpec> spec,
                         std::vector<SharedPlace> places)
    : pool_(pool),
      spec_(std::move(spec)),
      places_(std::move(places)),
      headers_(spec_->layer_layouts.size()) {
  uint64_t offset_bytes = 0;
  for (const PageLayout& layout : spec_->layer_layouts) {
    layer_offsets_bytes_.push_back(offset_bytes);
    offset_bytes += layout.page_bytes;
  }
}

int64_t DevicePages::page_count() const {
  const SlabGeometry& geometry = pool_->geometry();
  return static_cast<int64_t>(geometry.slab_bytes * geometry.slab_count / kPageIdBytes);
}

uint32_t DevicePages::SlabOf(const SharedPlace& place) const {
  return static_cast<uint32_t>(place.offset_bytes / pool_->geometry().slab_bytes);
}

absl::Status DevicePages::MapSlabs(uint64_t lease_id) {
  if (page_count() > std::numeric_limits<int32_t>::max()) {
    return absl::UnimplementedError(absl::StrCat("pool ", pool_->pool(), " has ", page_count(),
                                                 " times ", kPageIdBytes, " bytes; page ids reach ",
                                                 std::numeric_limits<int32_t>::max(), " of them"));
  }
  const int64_t elsewhere =
      std::count_if(places_.begin(), places_.end(),
                    [&](const SharedPlace& place) { return place.pool != pool_->pool(); });
  if (elsewhere > 0) {
    return absl::FailedPreconditionError(absl::StrCat(elsewhere, " of ", blocks(),
                                                      " blocks are not in the GPU's memory (pool ",
                                                      pool_->pool(), ")"));
  }
  const SlabGeometry& geometry = pool_->geometry();
  const uint64_t block_bytes = spec_->block_bytes();
  for (const SharedPlace& place : places_) {
    const uint64_t in_slab_bytes = place.offset_bytes % geometry.slab_bytes;
    if (place.offset_bytes / geometry.slab_bytes >= geometry.slab_count ||
        place.offset_bytes % kPageIdBytes != 0 || block_bytes > geometry.slab_bytes ||
        in_slab_bytes > geometry.slab_bytes - block_bytes) {
      return absl::InternalError(absl::StrCat("the server claims a block of ", block_bytes,
                                              " bytes at byte ", place.offset_bytes, " of pool ",
                                              pool_->pool(), ", which has ", geometry.slab_count,
                                              " slabs of ", geometry.slab_bytes, " bytes"));
    }
    TURBOKV_RETURN_IF_ERROR(pool_->Ensure(lease_id, SlabOf(place), place.generation));
  }
  return absl::OkStatus();
}

std::vector<int32_t> DevicePages::PageIds(int layer) const {
  std::vector<int32_t> ids;
  ids.reserve(places_.size());
  for (const SharedPlace& place : places_) {
    ids.push_back(
        static_cast<int32_t>((place.offset_bytes + layer_offsets_bytes_[layer]) / kPageIdBytes));
  }
  return ids;
}

absl::StatusOr<std::vector<PageHeader>> DevicePages::ReadHeaders(int layer,
                                                                 const ReadDevice& read) const {
  std::vector<const uint8_t*> device;
  device.reserve(places_.size());
  for (const SharedPlace& place : places_) {
    device.push_back(pool_->base() + place.offset_bytes + layer_offsets_bytes_[layer]);
  }
  std::vector<PageHeader> headers(places_.size());
  if (headers.empty()) return headers;
  TURBOKV_RETURN_IF_ERROR(
      read(reinterpret_cast<uint8_t*>(headers.data()), device, sizeof(PageHeader)));
  return headers;
}

absl::Status DevicePages::CheckHeader(const PageHeader& header, int layer, int64_t block) const {
  const PageLayout& layout = spec_->layer_layouts[layer];
  const auto first_token = static_cast<uint64_t>(block * kPageTokens);
  if (header.magic == kPageMagic && header.format_version == kPageFormatVersion &&
      header.header_bytes == kPageHeaderBytes && header.page_bytes == layout.page_bytes &&
      header.k_codec == static_cast<uint8_t>(layout.shape.k_codec) &&
      header.v_codec == static_cast<uint8_t>(layout.shape.v_codec) &&
      header.flags == (layout.shape.k_mean ? kPageHasKMean : 0) && header.tokens == kPageTokens &&
      header.kv_heads == layout.shape.kv_heads && header.head_dim == layout.shape.head_dim &&
      header.layer == static_cast<uint32_t>(layer) && header.first_token == first_token &&
      header.spec_id == spec_->spec_id()) {
    return absl::OkStatus();
  }
  return absl::DataLossError(
      absl::StrCat("layer ", layer, ", block ", block, " is not what was asked for: layer ",
                   header.layer, ", first token ", header.first_token, ", ", header.page_bytes,
                   " bytes, spec id ", absl::Hex(header.spec_id), "; expected layer ", layer,
                   ", first token ", first_token, ", ", layout.page_bytes, " bytes, spec id ",
                   absl::Hex(spec_->spec_id()), " and the spec's codecs and shape"));
}

absl::Status DevicePages::CheckLayer(int layer, const ReadDevice& read) {
  TURBOKV_ASSIGN_OR_RETURN(std::vector<PageHeader> headers, ReadHeaders(layer, read));
  for (int64_t block = 0; block < blocks(); ++block) {
    TURBOKV_RETURN_IF_ERROR(CheckHeader(headers[block], layer, block));
  }
  headers_[layer] = std::move(headers);
  return absl::OkStatus();
}

absl::Status DevicePages::CheckUnchanged(int layer, const ReadDevice& read) const {
  if (headers_[layer].size() != places_.size()) {
    return absl::FailedPreconditionError(
        absl::StrCat("layer ", layer, " was not checked before its pages were read"));
  }
  TURBOKV_ASSIGN_OR_RETURN(const std::vector<PageHeader> headers, ReadHeaders(layer, read));
  for (int64_t block = 0; block < blocks(); ++block) {
    // Another generation of the slab may have come and brought a page with the same header.
    const bool same_slab = pool_->IsMapped(SlabOf(places_[block]), places_[block].generation);
    if (same_slab &&
        std::memcmp(&headers[block], &headers_[layer][block], sizeof(PageHeader)) == 0) {
      continue;
    }
    return absl::DataLossError(absl::StrCat("layer ", layer, ", block ", block,
                                            " changed while it was read: the lease has ended"));
  }
  return absl::OkStatus();
}

}  // namespace turbokv
