#include "client/shared_fetch.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

constexpr uint32_t kHostPool = 0;
constexpr uint64_t kPlaceAlignmentBytes = 128;
constexpr int kTailPagesPerLayer = 2;  // as a tail is laid out, however many it fills

}  // namespace

absl::StatusOr<SharedFetch> SharedFetch::Open(std::shared_ptr<SharedMemory> memory,
                                              uint64_t lease_id,
                                              std::shared_ptr<const ResolvedSpec> spec,
                                              const LayerExtent& extent,
                                              absl::Span<const SharedPlace> places) {
  SharedFetch fetch;
  MappedPool& pool = memory->host_pool();
  for (const SharedPlace& place : places) {
    if (place.pool != kHostPool) {
      return absl::FailedPreconditionError(
          absl::StrCat("a block lies in pool ", place.pool, ", not in host memory"));
    }
    const bool is_tail = &place - places.data() >= extent.blocks;
    const uint64_t extent_bytes =
        is_tail ? spec->tail_layout.page_bytes * kTailPagesPerLayer * spec->spec.layers
                : spec->block_bytes();
    const uint64_t slab_bytes = pool.geometry().slab_bytes;
    const uint64_t slab = place.offset_bytes / slab_bytes;
    if (place.offset_bytes % kPlaceAlignmentBytes != 0 || slab >= pool.geometry().slab_count ||
        extent_bytes > slab_bytes - place.offset_bytes % slab_bytes) {
      return absl::InternalError(
          absl::StrCat("the server claims ", extent_bytes, " bytes at ", place.offset_bytes,
                       " of its memory of ", pool.geometry().slab_count, " slabs of ", slab_bytes));
    }
    TURBOKV_RETURN_IF_ERROR(pool.Ensure(lease_id, static_cast<uint32_t>(slab), place.generation));
  }
  fetch.memory_ = std::move(memory);
  fetch.spec_ = std::move(spec);
  fetch.extent_ = extent;
  fetch.places_.assign(places.begin(), places.end());
  uint64_t offset_bytes = 0;
  for (const PageLayout& layout : fetch.spec_->layer_layouts) {
    fetch.layer_offsets_bytes_.push_back(offset_bytes);
    offset_bytes += layout.page_bytes;
  }
  return fetch;
}

absl::StatusOr<absl::Span<const uint8_t>> SharedFetch::PageAt(const FetchedPage& page) const {
  const size_t tail_page_bytes = spec_->tail_layout.page_bytes;
  const absl::StatusOr<absl::Span<const uint8_t>> bytes =
      page.tail
          ? memory_->host_pool().Bytes(
                places_.back().offset_bytes +
                    (uint64_t{kTailPagesPerLayer} * page.layer + page.index) * tail_page_bytes,
                tail_page_bytes)
          : memory_->host_pool().Bytes(
                places_[page.index].offset_bytes + layer_offsets_bytes_[page.layer],
                spec_->layer_layouts[page.layer].page_bytes);
  if (bytes.ok()) return bytes;
  return absl::InternalError(
      absl::StrCat("the server's place of a page cannot be: ", bytes.status().message()));
}

absl::Status SharedFetch::AddPage(const FetchedPage& page,
                                  std::vector<absl::Span<const uint8_t>>* pages) {
  TURBOKV_ASSIGN_OR_RETURN(const absl::Span<const uint8_t> bytes, PageAt(page));
  TURBOKV_RETURN_IF_ERROR(CheckFetchedPage(*spec_, extent_, page, bytes));
  std::memcpy(&headers_.emplace_back(), bytes.data(), sizeof(PageHeader));
  pages->push_back(bytes);
  layer_bytes_ += bytes.size();
  return absl::OkStatus();
}

absl::StatusOr<FetchedLayer> SharedFetch::Layer(int layer) {
  FetchedLayer fetched;
  fetched.layer = layer;
  fetched.storage = memory_;
  headers_.clear();
  layer_bytes_ = 0;
  for (int64_t block = 0; block < extent_.blocks; ++block) {
    TURBOKV_RETURN_IF_ERROR(AddPage({layer, false, block}, &fetched.pages));
  }
  for (int page = 0; page < extent_.tail_pages(); ++page) {
    TURBOKV_RETURN_IF_ERROR(AddPage({layer, true, page}, &fetched.tail_pages));
  }
  return fetched;
}

absl::Status SharedFetch::CheckUnchanged(const FetchedLayer& layer) const {
  for (size_t i = 0; i < headers_.size(); ++i) {
    const bool tail = i >= layer.pages.size();
    const auto& page = tail ? layer.tail_pages[i - layer.pages.size()] : layer.pages[i];
    if (std::memcmp(page.data(), &headers_[i], sizeof(PageHeader)) == 0) continue;
    return absl::DataLossError(absl::StrCat(
        "layer ", layer.layer, ", ", tail ? "tail page " : "page ",
        tail ? i - layer.pages.size() : i, " changed while it was read: the lease has ended"));
  }
  return absl::OkStatus();
}

}  // namespace turbokv
