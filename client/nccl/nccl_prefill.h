// Stores the K/V of a prompt, or pages of it, from GPU memory over an NCCL channel. What is not
// whole pages (the tail) comes from host memory and goes by gRPC, in the same stream.
//
//   auto store = NcclPrefill::Open(channel, link, spec, token_ids, {});
//   for each layer: store->WriteLayer(layer, device_k, device_v, rest);  // returns at once
//   store->WaitSent();                     // device memory may be used again
//   auto result = store->Finish();         // blocks are visible when this returns OK
//
// A store that fails after its first WriteLayer ends the channel, since the service receives what
// it was told of no more: open a new link.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cache_spec.h"
#include "client/channel.h"
#include "client/nccl/nccl_link.h"
#include "client/prefill_writer.h"
#include "kernels/kv_view.h"

namespace turbokv {

// One store, used by one thread; several may share a link. Destruction before Finish cancels:
// nothing becomes visible.
class NcclPrefill {
 public:
  // As PrefillWriter::Open. The blocks will be in the memory of the service's GPU of the link, or
  // the store fails: RESOURCE_EXHAUSTED, UNIMPLEMENTED (pages that this GPU does not take).
  // FAILED_PRECONDITION: the service takes no stores over this link.
  static absl::StatusOr<std::unique_ptr<NcclPrefill>> Open(std::shared_ptr<CacheChannel> channel,
                                                           std::shared_ptr<NcclLink> link,
                                                           std::shared_ptr<const ResolvedSpec> spec,
                                                           absl::Span<const int32_t> token_ids,
                                                           const StoreOptions& options);
  // As Open, for pages that the caller's GPU has encoded (WritePages); no tail.
  static absl::StatusOr<std::unique_ptr<NcclPrefill>> OpenPages(
      std::shared_ptr<CacheChannel> channel, std::shared_ptr<NcclLink> link,
      std::shared_ptr<const ResolvedSpec> spec, absl::Span<const int32_t> token_ids,
      const StoreOptions& options);
  ~NcclPrefill();

  // Of each layer, from options.first_token on: blocks that go over the channel, and tokens after
  // them that go by gRPC.
  int64_t run_blocks() const;
  int64_t rest_tokens() const;

  // K and V of the first run_blocks() x 128 tokens in device memory, each [tokens][kv_heads]
  // [head_dim] of spec.source_type, ready to be read and left alone until WaitSent or Finish
  // returns; and of the rest_tokens() that follow in host memory, likewise without gaps. Layers
  // ascend. The view is not used after the call returns.
  absl::Status WriteLayer(int layer, const uint8_t* device_k, const uint8_t* device_v,
                          const KvView& rest);

  // run_blocks() sealed pages of a layer, one after the other in device memory, as above.
  absl::Status WritePages(int layer, const uint8_t* device_pages);

  // Waits until all device memory written so far has been read.
  absl::Status WaitSent();

  // Closes the stream and waits for the service's answer, which names what was wrong.
  absl::StatusOr<StoreResult> Finish();

 private:
  class Impl;
  explicit NcclPrefill(std::unique_ptr<Impl> impl);
  static absl::StatusOr<std::unique_ptr<NcclPrefill>> Open(std::shared_ptr<CacheChannel> channel,
                                                           std::shared_ptr<NcclLink> link,
                                                           std::shared_ptr<const ResolvedSpec> spec,
                                                           absl::Span<const int32_t> token_ids,
                                                           const StoreOptions& options, bool pages);
  std::unique_ptr<Impl> impl_;
};

}  // namespace turbokv
