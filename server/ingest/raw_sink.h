// Raw K/V, in order, into pages: on the CPU into host memory, or by a GPU into its own.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/device/encode_completion.h"
#include "server/device/staging_ring.h"
#include "server/ingest/layer_order.h"
#include "server/ingest/page_encoder.h"
#include "server/ingest/store_session.h"

namespace turbokv {

class RawSink final : public ChunkSink {
 public:
  // `target`, `encoder` and `encode_time` (added to) outlive this.
  RawSink(const StoreTarget* target, PageEncoder* encoder, absl::Duration* encode_time);
  ~RawSink() override;  // waits for what the GPU still writes

  absl::Status Add(const StoreChunk& chunk) override;
  absl::Status Skip(const BlockRun& run) override;
  absl::Status Finish() override;

 private:
  // Where the page that is being assembled stands.
  struct PageRange {
    int64_t begin = 0;  // counted from first_token
    int tokens = 0;
  };
  // A page that is compared with what the GPU made of it.
  struct Sample {
    std::vector<uint8_t> raw;
    PageRange page;
    int layer = 0;
  };

  absl::Status CheckShape(const StoreChunk& chunk) const;
  PageRange PageAt(int64_t token_offset) const;
  bool InBlock(const PageRange& page) const;
  bool InTail(const PageRange& page) const;
  bool OnDevice(const PageRange& page) const;
  // Where the page is assembled: pinned memory if the GPU encodes it.
  absl::StatusOr<uint8_t*> PageBuffer(const PageRange& page);
  absl::Status Stage(const StoreChunk& chunk, const PageRange& page);
  absl::Status EncodePage(const PageRange& page);
  void SubmitPage(const PageRange& page, const PageIdentity& identity);
  void CompareSample();
  KvView ViewOf(const uint8_t* raw, int tokens) const;

  const StoreTarget& target_;
  PageEncoder* const encoder_;
  absl::Duration* const encode_time_;
  const size_t tensor_token_bytes_;  // K (or V) of one token
  LayerOrder order_;
  std::vector<uint8_t> staging_;  // K of 128 tokens, then V
  StagingRing::Slot slot_;        // likewise, of a page for the GPU
  std::optional<Sample> sample_;
  EncodeCompletion completion_;
};

}  // namespace turbokv
