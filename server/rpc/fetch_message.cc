#include "server/rpc/fetch_message.h"

#include <utility>
#include <vector>

#include "client/wire/bulk_message.h"

namespace turbokv {
namespace {

struct PinnedPages {
  std::shared_ptr<Storage> storage;
  std::shared_ptr<const LeaseInfo> lease;
};

struct HeldCopies {
  std::shared_ptr<const void> pages;
  std::vector<std::shared_ptr<const void>> copies;
};

}  // namespace

FetchRange RangeOf(const v1::FetchRequest& request) {
  FetchRange range;
  range.first_layer = request.first_layer();
  range.layer_count = request.layer_count();
  range.first_block = request.first_block();
  range.block_count = request.block_count();
  range.include_tail = request.include_tail();
  range.chunk_bytes = request.chunk_bytes();
  return range;
}

std::shared_ptr<const void> PinPages(std::shared_ptr<Storage> storage,
                                     std::shared_ptr<const LeaseInfo> lease) {
  return std::make_shared<const PinnedPages>(PinnedPages{std::move(storage), std::move(lease)});
}

FetchMessage MakeFetchMessage(RunChunk chunk, const std::shared_ptr<const void>& pages) {
  v1::FetchResponse fields;
  fields.set_layer(chunk.layer);
  fields.set_offset(chunk.offset);
  fields.set_layer_bytes(chunk.layer_bytes);
  const bool ends_layer = chunk.ends_layer();
  std::shared_ptr<const void> holder = pages;
  if (!chunk.copies.empty()) {
    holder = std::make_shared<const HeldCopies>(HeldCopies{pages, std::move(chunk.copies)});
  }
  std::vector<grpc::Slice> slices;
  slices.reserve(chunk.pieces.size());
  for (const absl::Span<const uint8_t> piece : chunk.pieces) {
    slices.push_back(BorrowedSlice(piece, holder));
  }
  return {BuildBulkMessage(fields, slices), static_cast<int64_t>(chunk.bytes), ends_layer};
}

}  // namespace turbokv
