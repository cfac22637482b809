// Assembles raw K/V into pages of 128 tokens and encodes them into blocks and the tail.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/ingest/layer_order.h"
#include "server/ingest/page_encoder.h"
#include "server/ingest/store_session.h"

namespace turbokv {

class RawSink final : public ChunkSink {
 public:
  // `target`, `encoder` and `encode_time` (added to) outlive this.
  RawSink(const StoreTarget* target, PageEncoder* encoder, absl::Duration* encode_time);

  absl::Status Add(const StoreChunk& chunk) override;
  absl::Status CheckComplete() const override { return order_.CheckComplete(); }

 private:
  // Where the page that is being assembled stands.
  struct PageRange {
    int64_t begin = 0;  // counted from first_token
    int tokens = 0;
  };

  absl::Status CheckShape(const StoreChunk& chunk) const;
  PageRange PageAt(int64_t token_offset) const;
  bool InBlock(const PageRange& page) const;
  bool InTail(const PageRange& page) const;
  void Stage(const StoreChunk& chunk, const PageRange& page);
  absl::Status EncodePage(const PageRange& page);

  const StoreTarget& target_;
  PageEncoder* const encoder_;
  absl::Duration* const encode_time_;
  const size_t tensor_token_bytes_;  // K (or V) of one token
  LayerOrder order_;
  std::vector<uint8_t> staging_;  // K of 128 tokens, then V
};

}  // namespace turbokv
