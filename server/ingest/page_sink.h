// Receives pages that a client has encoded, straight into the pool, and checks each one.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/format/page_header.h"
#include "server/device/encode_completion.h"
#include "server/device/staging_ring.h"
#include "server/ingest/layer_order.h"
#include "server/ingest/store_session.h"

namespace turbokv {

// Whether a whole page of 128 tokens is the expected one. INVALID_ARGUMENT begins with `where`.
absl::Status CheckPageIdentity(absl::string_view where, const PageHeader& header,
                               const PageIdentity& expected);

class PageSink final : public ChunkSink {
 public:
  explicit PageSink(const StoreTarget* target);  // outlives this
  ~PageSink() override;                          // waits for copies to the GPU

  absl::Status Add(const StoreChunk& chunk) override;
  absl::Status Skip(const BlockRun& run) override;
  absl::Status Finish() override;

 private:
  // Where the page of `block` is assembled: pinned memory if it is a GPU's.
  absl::StatusOr<uint8_t*> PageBuffer(int64_t block);
  absl::Status CheckPage(int64_t block, absl::Span<const uint8_t> bytes) const;
  absl::Status EndPage(int64_t block);

  const StoreTarget& target_;
  LayerOrder order_;
  StagingRing::Slot slot_;
  EncodeCompletion completion_;
};

}  // namespace turbokv
