// Messages of fetches.
#pragma once

#include <cstdint>
#include <memory>

#include "grpcpp/support/byte_buffer.h"
#include "server/ingest/page_run.h"
#include "server/rpc/service_state.h"
#include "turbokv/v1/cache.pb.h"

namespace turbokv {

// What the request asks for, for PageRun::Create to check.
FetchRange RangeOf(const v1::FetchRequest& request);

// A chunk ready to be written.
struct FetchMessage {
  grpc::ByteBuffer bytes;
  int64_t data_bytes = 0;
  bool ends_layer = false;
};

// What slices that are being sent keep alive: the lease's refs go before the cache they refer to.
std::shared_ptr<const void> PinPages(std::shared_ptr<Storage> storage,
                                     std::shared_ptr<const LeaseInfo> lease);

// `pages` is PinPages of the lease that the chunk is of.
FetchMessage MakeFetchMessage(RunChunk chunk, const std::shared_ptr<const void>& pages);

}  // namespace turbokv
