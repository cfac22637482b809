#include "client/device_match.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv {

DeviceReader::DeviceReader(std::shared_ptr<CacheChannel> channel,
                           std::shared_ptr<const ResolvedSpec> spec,
                           std::shared_ptr<DeviceMemory> memory, ReadDevice read)
    : memory_(std::move(memory)),
      spec_(spec),
      read_(std::move(read)),
      reader_(std::move(channel), std::move(spec)) {}

absl::StatusOr<Match> DeviceReader::Lookup(absl::Span<const int32_t> token_ids,
                                           const LookupOptions& options) {
  Release().IgnoreError();  // an old lease that is gone already is no concern of this lookup
  if (!memory_->alive()) {
    return absl::UnavailableError(
        absl::StrCat("the server that shared the memory of ", memory_->device_uuid(), " has gone"));
  }
  LookupOptions on_device = options;
  on_device.device_uuid = memory_->device_uuid();
  on_device.share_session = memory_->session_id();
  TURBOKV_ASSIGN_OR_RETURN(match_, reader_.Lookup(token_ids, on_device));
  if (match_.lease_id == 0) return match_;
  std::vector<SharedPlace> places = match_.places;
  if (places.empty()) {
    Release().IgnoreError();
    return absl::InternalError("lookup: the server tells no places for a session");
  }
  places.resize(static_cast<size_t>(match_.blocks));  // without the tail's
  absl::StatusOr<DevicePages> pages =
      DevicePages::Map(&memory_->pool(), match_.lease_id, spec_, std::move(places));
  if (!pages.ok()) {
    Release().IgnoreError();
    return pages.status();
  }
  pages_ = std::make_unique<DevicePages>(*std::move(pages));
  return match_;
}

absl::Status DeviceReader::CheckMatched(int layer) const {
  if (pages_ == nullptr) {
    return absl::FailedPreconditionError("no lease: Lookup has found nothing, or Release came");
  }
  const int layers = spec_->spec.layers;
  if (layer >= 0 && layer < layers) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("layer is ", layer, "; expected 0..", layers - 1));
}

absl::StatusOr<DeviceLayer> DeviceReader::Layer(int layer) {
  TURBOKV_RETURN_IF_ERROR(CheckMatched(layer));
  TURBOKV_RETURN_IF_ERROR(pages_->CheckLayer(layer, read_));
  DeviceLayer found;
  found.shape = spec_->layer_layouts[layer].shape;
  found.device_base = pages_->device_base();
  found.page_count = pages_->page_count();
  found.layer_offset_bytes = pages_->layer_offset_bytes(layer);
  found.page_ids = pages_->PageIds(layer);
  return found;
}

absl::Status DeviceReader::CheckUnchanged(int layer) const {
  TURBOKV_RETURN_IF_ERROR(CheckMatched(layer));
  return pages_->CheckUnchanged(layer, read_);
}

absl::Status DeviceReader::FetchTail(const std::function<absl::Status(FetchedLayer)>& on_layer) {
  if (!match_.tail_found) {
    return absl::FailedPreconditionError("the match has no tail");
  }
  FetchOptions options;
  options.first_block = match_.blocks;
  return reader_.Fetch(options, on_layer);
}

absl::Status DeviceReader::Renew(absl::Duration lease) { return reader_.Renew(lease); }

absl::Status DeviceReader::Release() {
  pages_ = nullptr;
  match_ = Match();
  return reader_.Release();
}

}  // namespace turbokv
