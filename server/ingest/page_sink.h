// Receives pages that a client has encoded, straight into the pool, and checks each one.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "server/ingest/layer_order.h"
#include "server/ingest/store_session.h"

namespace turbokv {

class PageSink final : public ChunkSink {
 public:
  explicit PageSink(const StoreTarget* target);  // outlives this

  absl::Status Add(const StoreChunk& chunk) override;
  absl::Status CheckComplete() const override { return order_.CheckComplete(); }

 private:
  absl::Status CheckPage(int64_t block) const;

  const StoreTarget& target_;
  LayerOrder order_;
};

}  // namespace turbokv
