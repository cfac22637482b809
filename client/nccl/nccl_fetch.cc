#include "client/nccl/nccl_fetch.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/nccl/outstanding_transfers.h"
#include "client/wire/bulk_message.h"
#include "client/wire/fetch_call.h"
#include "client/wire/layer_assembler.h"

namespace turbokv {
namespace {

constexpr size_t kMaxPages = 4096;  // NcclFetch.pages_per_transfer

// Whether the service itself ended the call and has given up the numbers that it has not told of.
bool IsAnswer(const absl::Status& status) {
  return !absl::IsUnavailable(status) && !absl::IsCancelled(status) &&
         !absl::IsDeadlineExceeded(status) && !absl::IsUnknown(status);
}

class NcclFetchCall {
 public:
  NcclFetchCall(std::shared_ptr<CacheChannel> channel, NcclLink* link,
                std::shared_ptr<const ResolvedSpec> spec, const Match& match,
                const FetchOptions& options, absl::Span<uint8_t* const> device_layers)
      : channel_(std::move(channel)),
        link_(link),
        spec_(std::move(spec)),
        options_(options),
        device_layers_(device_layers),
        blocks_(options.block_count == 0 ? match.blocks - options.first_block
                                         : options.block_count),
        tail_tokens_(options.include_tail && match.tail_found ? match.tail_tokens : 0),
        buffers_(std::make_shared<LayerBuffers>()) {}

  absl::Status Check() {
    const int following = spec_->spec.layers - options_.first_layer;
    const int layers = options_.layer_count == 0 ? following : options_.layer_count;
    if (options_.first_layer < 0 || layers < 1 || layers > following) {
      return absl::InvalidArgumentError(absl::StrCat("first_layer is ", options_.first_layer,
                                                     " and layer_count ", options_.layer_count,
                                                     "; the spec has ", spec_->spec.layers));
    }
    if (options_.first_block < 0 || blocks_ < 0) {
      return absl::InvalidArgumentError(absl::StrCat("first_block is ", options_.first_block,
                                                     ", which leaves ", blocks_, " blocks"));
    }
    if (static_cast<int>(device_layers_.size()) != layers) {
      return absl::InvalidArgumentError(absl::StrCat(
          "there is device memory for ", device_layers_.size(), " layers; expected ", layers));
    }
    size_t largest_bytes = 0;
    for (int i = 0; i < layers; ++i) largest_bytes = std::max(largest_bytes, PageBytes(i));
    pages_ = layers * blocks_;
    per_transfer_ =
        static_cast<int64_t>(std::min(link_->max_transfer_bytes() / largest_bytes, kMaxPages));
    if (per_transfer_ == 0) {
      return absl::FailedPreconditionError(absl::StrCat("a page of ", largest_bytes,
                                                        " bytes; the service sends transfers of ",
                                                        link_->max_transfer_bytes()));
    }
    transfers_ = (pages_ + per_transfer_ - 1) / per_transfer_;
    return link_->status();
  }

  absl::Status Run(uint64_t lease_id, const std::function<absl::Status(FetchedLayer)>& on_tail) {
    first_sequence_ = link_->TakeSequences(transfers_);
    absl::Status status;
    {
      FetchCall call(channel_, options_.timeout, RequestOf(lease_id));
      status = Receive(&call, on_tail);
    }
    const uint64_t end = first_sequence_ + transfers_;
    if (!status.ok() && ended_by_service_ && IsAnswer(status)) {
      GiveUpTransfers(link_->channel().get(), first_sequence_ + announced_, end);
    } else if (!status.ok()) {
      // Who knows what the service has sent.
      link_->channel()->Abort(status.message());
    }
    const absl::Status received = receives_.Wait();
    return status.ok() ? received : status;
  }

 private:
  size_t PageBytes(int64_t layer) const {
    return spec_->layer_layouts[options_.first_layer + layer].page_bytes;
  }

  v1::FetchRequest RequestOf(uint64_t lease_id) const {
    v1::FetchRequest request;
    request.set_lease_id(lease_id);
    request.set_first_layer(options_.first_layer);
    request.set_layer_count(options_.layer_count);
    request.set_first_block(options_.first_block);
    request.set_block_count(options_.block_count);
    request.set_include_tail(tail_tokens_ > 0);
    request.set_chunk_bytes(static_cast<uint32_t>(options_.chunk_bytes));
    v1::NcclFetch* nccl = request.mutable_nccl();
    nccl->set_channel_id(link_->channel_id());
    nccl->set_first_sequence(first_sequence_);
    nccl->set_transfer_count(static_cast<uint32_t>(transfers_));
    nccl->set_pages_per_transfer(static_cast<uint32_t>(per_transfer_));
    return request;
  }

  absl::Status Receive(FetchCall* call, const std::function<absl::Status(FetchedLayer)>& on_tail) {
    grpc::ByteBuffer message;
    v1::FetchResponse fields;
    int tail_layer = 0;
    std::optional<LayerAssembler> tail;
    while (call->Read(&message)) {
      fields.Clear();
      TURBOKV_ASSIGN_OR_RETURN(const BulkPayload payload, ParseBulkMessage(message, &fields));
      if (fields.has_nccl()) {
        TURBOKV_RETURN_IF_ERROR(ReceiveTransfer(fields.nccl()));
        continue;
      }
      const int layer = options_.first_layer + tail_layer;
      if (tail_tokens_ == 0 || fields.layer() != static_cast<uint32_t>(layer)) {
        return absl::InternalError(
            absl::StrCat("fetch: the server sent data of layer ", fields.layer()));
      }
      if (!tail) {
        tail.emplace(spec_, LayerExtent{options_.first_block, 0, tail_tokens_}, layer,
                     buffers_.get());
      }
      TURBOKV_RETURN_IF_ERROR(tail->Append(fields.offset(), fields.layer_bytes(), payload.pieces(),
                                           payload.size_bytes()));
      if (!tail->complete()) continue;
      TURBOKV_RETURN_IF_ERROR(on_tail(tail->Take()));
      tail.reset();
      ++tail_layer;
    }
    ended_by_service_ = true;
    TURBOKV_RETURN_IF_ERROR(call->Finish());
    const bool tail_whole =
        tail_tokens_ == 0 || tail_layer == static_cast<int>(device_layers_.size());
    if (announced_ == transfers_ && tail_whole) return absl::OkStatus();
    ended_by_service_ = false;
    return absl::InternalError(absl::StrCat("fetch: the server ended after ", announced_, " of ",
                                            transfers_, " transfers and the tails of ", tail_layer,
                                            " layers"));
  }

  absl::Status ReceiveTransfer(const v1::NcclPages& told) {
    std::vector<NcclPiece> pieces;
    size_t bytes = 0;
    const int64_t begin = announced_ * per_transfer_;
    const int64_t end = std::min(pages_, begin + per_transfer_);
    for (int64_t page = begin; page < end;) {
      const int64_t layer = page / blocks_;
      const int64_t count = std::min(end, (layer + 1) * blocks_) - page;
      const size_t page_bytes = PageBytes(layer);
      pieces.push_back(
          {device_layers_[layer] + (page - layer * blocks_) * page_bytes, count * page_bytes});
      bytes += pieces.back().bytes;
      page += count;
    }
    const uint64_t expected = first_sequence_ + announced_;
    if (announced_ == transfers_ || told.sequence() != expected || told.bytes() != bytes) {
      return absl::InternalError(absl::StrCat("fetch: the server sends transfer ", told.sequence(),
                                              " of ", told.bytes(), " bytes, expected ", expected,
                                              " of ", bytes, ", ", transfers_, " in all"));
    }
    ++announced_;
    return receives_.Enqueue(link_->channel().get(), expected, NcclDirection::kReceive, pieces);
  }

  const std::shared_ptr<CacheChannel> channel_;
  NcclLink* const link_;
  const std::shared_ptr<const ResolvedSpec> spec_;
  const FetchOptions options_;
  const absl::Span<uint8_t* const> device_layers_;
  const int64_t blocks_;
  const int tail_tokens_;
  const std::shared_ptr<LayerBuffers> buffers_;
  int64_t pages_ = 0;  // of all layers
  int64_t per_transfer_ = 0;
  int64_t transfers_ = 0;
  uint64_t first_sequence_ = 0;
  int64_t announced_ = 0;
  bool ended_by_service_ = false;
  OutstandingTransfers receives_;
};

}  // namespace

absl::Status FetchOverNccl(const std::shared_ptr<CacheChannel>& channel, NcclLink* link,
                           const std::shared_ptr<const ResolvedSpec>& spec, const Match& match,
                           const FetchOptions& options, absl::Span<uint8_t* const> device_layers,
                           const std::function<absl::Status(FetchedLayer)>& on_tail) {
  NcclFetchCall call(channel, link, spec, match, options, device_layers);
  TURBOKV_RETURN_IF_ERROR(call.Check());
  return call.Run(match.lease_id, on_tail);
}

}  // namespace turbokv
