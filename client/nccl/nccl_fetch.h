// Fetches the pages of a match into GPU memory over an NCCL channel; those of the tail come by gRPC
// into host memory.
//
//   DecodeReader reader(channel, spec);
//   LookupOptions lookup{.device_uuid = link->service_device_uuid()};  // moves the blocks there
//   TURBOKV_ASSIGN_OR_RETURN(Match match, reader.Lookup(token_ids, lookup));
//   FetchOverNccl(channel, link.get(), spec, match, {}, device_layers, on_tail);
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "client/cache_spec.h"
#include "client/channel.h"
#include "client/decode_reader.h"
#include "client/nccl/nccl_link.h"

namespace turbokv {

// Pages of layer options.first_layer + i come to device_layers[i], one after the other in the order
// of their blocks: blocks x page_bytes of that layer. The service has verified them; `on_tail` (may
// be null without a tail) gets the tail pages of each layer, verified, as DecodeReader::Fetch gives
// them, and may stop the fetch by an error.
//
// Returns when everything is there. FAILED_PRECONDITION: blocks are not in the memory of the
// link's GPU (the message says how many, and where): fetch by gRPC, or look up again. DATA_LOSS as
// DecodeReader::Fetch. After an error, device memory is not written any more, its contents are
// undefined; the link may have ended (link->status()).
//
// Threads: several fetches and stores may share a link.
absl::Status FetchOverNccl(const std::shared_ptr<CacheChannel>& channel, NcclLink* link,
                           const std::shared_ptr<const ResolvedSpec>& spec, const Match& match,
                           const FetchOptions& options, absl::Span<uint8_t* const> device_layers,
                           const std::function<absl::Status(FetchedLayer)>& on_tail);

}  // namespace turbokv
