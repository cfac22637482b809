#include "server/nccl/page_sender.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "kernels/format/page_header.h"

namespace turbokv {

PageSender::PageSender(PageSenderOptions options, const TransferNumbers& numbers)
    : options_(std::move(options)), numbers_(numbers) {}

PageSender::~PageSender() {
  const uint64_t first = numbers_.first_sequence + next_transfer_;
  const uint64_t end =
      numbers_.first_sequence + std::min<uint64_t>(numbers_.transfer_count, kMaxTransferPages);
  GiveUpTransfers(options_.end.channel.get(), first, end);
  for (uint64_t sequence = first; sequence < end; ++sequence) options_.end.turns->Pass(sequence);
}

absl::Status PageSender::Open(std::shared_ptr<const LeaseInfo> lease, const PageRun& range) {
  lease_ = std::move(lease);
  first_layer_ = range.layer();
  end_layer_ = range.end_layer();
  first_block_ = range.first_block();
  blocks_ = range.block_count();
  TURBOKV_RETURN_IF_ERROR(CheckPlaces());
  TURBOKV_RETURN_IF_ERROR(CheckNumbers());
  return ReadLayouts();
}

absl::Status PageSender::CheckPlaces() const {
  int64_t in_host = 0;
  int64_t on_other_gpus = 0;
  for (int64_t i = 0; i < blocks_; ++i) {
    const PoolId pool = BlockAt(i).pool();
    if (pool == kHostPool) {
      ++in_host;
    } else if (pool != options_.end.pool) {
      ++on_other_gpus;
    }
  }
  if (in_host + on_other_gpus == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("of ", blocks_, " blocks, ", in_host, " are in host memory and ", on_other_gpus,
                   " on other GPUs than the channel's: look them up with its device_uuid"));
}

absl::Status PageSender::CheckNumbers() const {
  const auto invalid = [](absl::string_view field, uint64_t value, const auto&... expected) {
    return absl::InvalidArgumentError(
        absl::StrCat("nccl.", field, " is ", value, "; expected ", expected...));
  };
  const uint64_t per_transfer = numbers_.pages_per_transfer;
  if (per_transfer < 1 || per_transfer > kMaxTransferPages) {
    return invalid("pages_per_transfer", per_transfer, "1..", kMaxTransferPages);
  }
  const uint64_t pages = static_cast<uint64_t>(page_count());
  const uint64_t transfers = (pages + per_transfer - 1) / per_transfer;
  if (numbers_.transfer_count != transfers || transfers > kMaxTransferPages) {
    return invalid("transfer_count", numbers_.transfer_count, transfers, " for ", pages,
                   " pages, at most ", kMaxTransferPages);
  }
  size_t largest_bytes = 0;
  for (int layer = first_layer_; layer < end_layer_ && blocks_ > 0; ++layer) {
    largest_bytes = std::max(largest_bytes, BlockAt(0).page(layer).size());
  }
  const size_t limit_bytes = options_.lanes->max_transfer_bytes();
  if (std::min(per_transfer, pages) * largest_bytes > limit_bytes) {
    return invalid("pages_per_transfer", per_transfer, "at most ", limit_bytes / largest_bytes,
                   " pages of ", largest_bytes, " bytes, ", limit_bytes, " in all");
  }
  return absl::OkStatus();
}

// Of the first block's headers. That all pages of a layer have its layout is checked with their
// checksums.
absl::Status PageSender::ReadLayouts() {
  if (blocks_ == 0) return absl::OkStatus();
  std::vector<PageHeader> headers(layouts_count());
  std::vector<DeviceRead> reads;
  for (int layer = first_layer_; layer < end_layer_; ++layer) {
    reads.push_back({reinterpret_cast<uint8_t*>(&headers[layer - first_layer_]),
                     BlockAt(0).page(layer).data(), sizeof(PageHeader)});
  }
  TURBOKV_RETURN_IF_ERROR(options_.lanes->io()->Read(reads));
  for (int layer = first_layer_; layer < end_layer_; ++layer) {
    const PageHeader& header = headers[layer - first_layer_];
    PageShape shape;
    shape.kv_heads = header.kv_heads;
    shape.head_dim = header.head_dim;
    shape.k_codec = static_cast<Codec>(header.k_codec);
    shape.v_codec = static_cast<Codec>(header.v_codec);
    shape.k_mean = (header.flags & kPageHasKMean) != 0;
    const absl::StatusOr<PageLayout> layout = PageLayout::For(shape);
    const EntryGeometry& geometry = BlockAt(0).geometry();
    if (!layout.ok() || layout->page_bytes != BlockAt(0).page(layer).size() ||
        header.layer != static_cast<uint32_t>(layer) ||
        std::memcmp(&header.spec_id, geometry.spec_fingerprint.data(), sizeof(header.spec_id)) !=
            0) {
      return Damaged(layer, 0);
    }
    layouts_.push_back(*layout);
  }
  return absl::OkStatus();
}

absl::Status PageSender::Damaged(int layer, int64_t block) const {
  options_.metrics->CountDataLoss();
  options_.cache->Discard(BlockAt(block));
  return absl::DataLossError(absl::StrCat("layer ", layer, ", block ", first_block_ + block,
                                          " is damaged and was dropped"));
}

std::vector<PageSender::Part> PageSender::NextParts() const {
  std::vector<Part> parts;
  const int64_t end = std::min(page_count(), next_page_ + numbers_.pages_per_transfer);
  for (int64_t page = next_page_; page < end; ++page) {
    const int layer = first_layer_ + static_cast<int>(page / blocks_);
    const int64_t block = page % blocks_;
    if (parts.empty() || parts.back().layer != layer) parts.push_back({layer, block, {}, 0, {}});
    const absl::Span<const uint8_t> bytes = BlockAt(block).page(layer);
    parts.back().device_pages.push_back(bytes.data());
    parts.back().bytes += bytes.size();
  }
  return parts;
}

absl::StatusOr<std::shared_ptr<PageSender::Lane>> PageSender::AwaitLane() {
  const absl::Time deadline = absl::Now() + options_.patience;
  const uint64_t sequence = numbers_.first_sequence + next_transfer_;
  const auto stopped = [this] {
    if (options_.cancelled()) return absl::CancelledError("the client has gone");
    return options_.end.channel->status();
  };
  TURBOKV_RETURN_IF_ERROR(options_.end.turns->Wait(sequence, deadline, stopped));
  absl::StatusOr<std::shared_ptr<Lane>> lane =
      options_.lanes->Acquire(deadline, [&stopped] { return !stopped().ok(); });
  if (lane.ok()) options_.end.turns->Pass(sequence);
  return lane;
}

absl::Status PageSender::Gather(const Lane& lane, std::vector<Part>* parts) const {
  std::vector<DeviceCopy> copies;
  uint8_t* to = lane.device();
  absl::Status status;
  for (Part& part : *parts) {
    const PageLayout& layout = layouts_[part.layer - first_layer_];
    if (status.ok()) {
      status = lane.stream()->VerifyChecksums(layout, part.device_pages, &part.verdict);
    }
    for (const uint8_t* const page : part.device_pages) {
      copies.push_back({page, to, layout.page_bytes});
      to += layout.page_bytes;
    }
  }
  if (status.ok()) status = lane.stream()->CopyPages(copies);
  status.Update(lane.stream()->Wait());  // also after an error: verdicts are written
  return status;
}

absl::StatusOr<SentTransfer> PageSender::Next() {
  SentTransfer sent;
  if (next_page_ == page_count()) return sent;
  sent.sequence = numbers_.first_sequence + next_transfer_;
  std::vector<Part> parts = NextParts();
  TURBOKV_ASSIGN_OR_RETURN(const std::shared_ptr<Lane> lane, AwaitLane());
  TURBOKV_RETURN_IF_ERROR(Gather(*lane, &parts));
  std::vector<NcclPiece> pieces;
  int64_t pages = 0;
  for (const Part& part : parts) {
    if (part.verdict.bad_page >= 0)
      return Damaged(part.layer, part.first_page + part.verdict.bad_page);
    pieces.push_back({lane->device() + sent.bytes, part.bytes});
    sent.bytes += part.bytes;
    pages += static_cast<int64_t>(part.device_pages.size());
  }
  TURBOKV_RETURN_IF_ERROR(sends_.Enqueue(
      options_.end.channel.get(), sent.sequence, NcclDirection::kSend, pieces,
      [lane, metrics = options_.metrics, bytes = sent.bytes](const absl::Status& status) {
        if (absl::IsInternal(status)) lane->Abandon();
        if (status.ok()) metrics->CountNcclBytes(/*received=*/false, static_cast<int64_t>(bytes));
      }));
  next_page_ += pages;
  ++next_transfer_;
  return sent;
}

}  // namespace turbokv
