// Streams the K/V of a prompt to turbokvd, layer by layer, while the model computes.
//
//   auto writer = PrefillWriter::Open(channel, spec, token_ids, {});
//   for each layer: writer->WriteLayer(layer, k_and_v);      // returns when the bytes are on their
//   way auto result = writer->Finish();                          // blocks are visible when this
//   returns OK
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/cache_spec.h"
#include "client/channel.h"
#include "kernels/kv_view.h"

namespace turbokv {

struct StoreOptions {
  std::string salt;
  // Tokens before this one (a multiple of 128) are not sent: a lookup found them.
  int64_t first_token = 0;
  // Also hand the exact tail over, for a decode worker that goes on with this very sequence.
  bool store_tail = true;
  size_t chunk_bytes = size_t{256} << 10;  // 64 KiB..1 MiB
  absl::Duration timeout = absl::InfiniteDuration();
};

struct StoreResult {
  int64_t stored_blocks = 0;
  int64_t present_blocks = 0;
  bool stored_tail = false;
  int64_t raw_bytes = 0;
  int64_t kept_bytes = 0;
  int64_t sent_bytes = 0;  // of K/V values or pages, as sent
  absl::Duration encode_time;
  Road road = Road::kGrpc;  // by which the bytes went
};

// One store, used by one thread. Destruction before Finish cancels: nothing becomes visible.
class PrefillWriter {
 public:
  // Without store_tail only full blocks are sent.
  static absl::StatusOr<std::unique_ptr<PrefillWriter>> Open(
      std::shared_ptr<CacheChannel> channel, std::shared_ptr<const ResolvedSpec> spec,
      absl::Span<const int32_t> token_ids, const StoreOptions& options);

  // As Open, for pages that the caller has encoded itself (WritePage); no tail.
  static absl::StatusOr<std::unique_ptr<PrefillWriter>> OpenPages(
      std::shared_ptr<CacheChannel> channel, std::shared_ptr<const ResolvedSpec> spec,
      absl::Span<const int32_t> token_ids, const StoreOptions& options);

  ~PrefillWriter();

  // K and V of all tokens from options.first_token on (kv.tokens of them), of spec.source_type, any
  // strides. Layers ascend. The view is not used after the call returns.
  absl::Status WriteLayer(int layer, const KvView& kv);

  // The sealed page of block `block` (counted from first_token) of `layer`; layers ascend, blocks
  // ascend inside a layer. `page` must stay valid until Finish returns: it is sent without a copy.
  absl::Status WritePage(int layer, int64_t block, absl::Span<const uint8_t> page);

  // Closes the stream and waits for the server's answer.
  absl::StatusOr<StoreResult> Finish();

 private:
  class Impl;
  explicit PrefillWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace turbokv
