#include "server/ingest/page_sink.h"

#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/format/page_header.h"

namespace turbokv {
PageSink::PageSink(const StoreTarget* target)
    : target_(*target), order_(target->plan.spec->spec.layers, "bytes of pages") {}

PageSink::~PageSink() { completion_.Wait().IgnoreError(); }

absl::Status PageSink::Add(const StoreChunk& chunk) {
  TURBOKV_RETURN_IF_ERROR(order_.Enter(chunk.layer));
  const size_t page_bytes = target_.plan.spec->layer_layouts[chunk.layer].page_bytes;
  const uint64_t block = order_.position() / page_bytes;
  const uint64_t offset = order_.position() % page_bytes;
  if (chunk.block_index != block || chunk.page_offset != offset) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", chunk.layer, ": expected block_index ",
                                                   block, " page_offset ", offset, ", got ",
                                                   chunk.block_index, " and ", chunk.page_offset));
  }
  if (chunk.bytes == 0 || chunk.bytes > page_bytes - offset) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", chunk.layer, ", block ", block, ": a page has ", page_bytes,
                     " bytes, ", page_bytes - offset, " are left, got ", chunk.bytes));
  }
  const PendingEntry& entry = target_.blocks[block];
  if (entry) {
    TURBOKV_ASSIGN_OR_RETURN(uint8_t * next, PageBuffer(static_cast<int64_t>(block)));
    next += offset;
    for (const absl::Span<const uint8_t> piece : chunk.pieces) {
      std::memcpy(next, piece.data(), piece.size());
      next += piece.size();
    }
  }
  order_.Advance(chunk.bytes, page_bytes * target_.plan.blocks());
  const bool page_whole = offset + chunk.bytes == page_bytes;
  if (entry && page_whole) TURBOKV_RETURN_IF_ERROR(EndPage(static_cast<int64_t>(block)));
  return completion_.first_error();
}

absl::Status PageSink::Skip(const BlockRun& run) {
  TURBOKV_RETURN_IF_ERROR(order_.Enter(run.layer));
  const size_t page_bytes = target_.plan.spec->layer_layouts[run.layer].page_bytes;
  TURBOKV_RETURN_IF_ERROR(CheckRun(run, order_.position(), page_bytes, target_.plan.blocks()));
  order_.Advance(run.block_count * page_bytes, page_bytes * target_.plan.blocks());
  return completion_.first_error();
}

absl::Status PageSink::Finish() {
  TURBOKV_RETURN_IF_ERROR(order_.CheckComplete());
  return completion_.Wait();
}

absl::StatusOr<uint8_t*> PageSink::PageBuffer(int64_t block) {
  if (target_.device == nullptr) return target_.blocks[block].page(order_.layer()).data();
  if (!slot_) {
    TURBOKV_ASSIGN_OR_RETURN(slot_, target_.device->AcquireSlot());
  }
  return slot_.data();
}

absl::Status PageSink::EndPage(int64_t block) {
  const absl::Span<uint8_t> page = target_.blocks[block].page(order_.layer());
  if (!slot_) return CheckPage(block, page);
  TURBOKV_RETURN_IF_ERROR(CheckPage(block, {slot_.data(), page.size()}));
  target_.device->io->Upload(std::move(slot_), page.size(), page.data(), &completion_);
  return absl::OkStatus();
}

absl::Status PageSink::CheckPage(int64_t block, absl::Span<const uint8_t> bytes) const {
  const ResolvedSpec& spec = *target_.plan.spec;
  const std::string where = absl::StrCat("layer ", order_.layer(), ", block ", block, ": ");
  const absl::StatusOr<PageView> page = ParsePage(bytes);
  const absl::Status damage = page.ok() ? VerifyChecksum(*page) : page.status();
  if (!damage.ok()) return absl::Status(damage.code(), absl::StrCat(where, damage.message()));
  if (page->layout.shape != spec.layer_layouts[order_.layer()].shape) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, "codecs or shape of the page are not those of the spec"));
  }
  const uint64_t first_token = target_.plan.first_token + block * kPageTokens;
  PageIdentity identity;
  identity.layer = static_cast<uint32_t>(order_.layer());
  identity.first_token = first_token;
  identity.spec_id = spec.spec_id();
  return CheckPageIdentity(where, page->header, identity);
}

absl::Status CheckPageIdentity(absl::string_view where, const PageHeader& header,
                               const PageIdentity& expected) {
  const auto check = [&](absl::string_view field, uint64_t value, uint64_t wanted) {
    if (value == wanted) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(where, "the page's ", field, " is ", value, ", expected ", wanted));
  };
  TURBOKV_RETURN_IF_ERROR(check("layer", header.layer, expected.layer));
  TURBOKV_RETURN_IF_ERROR(check("first_token", header.first_token, expected.first_token));
  TURBOKV_RETURN_IF_ERROR(check("token count", header.tokens, kPageTokens));
  return check("spec_id", header.spec_id, expected.spec_id);
}

}  // namespace turbokv
