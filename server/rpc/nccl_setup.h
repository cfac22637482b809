// What of NCCL a server has: the library, the GPUs whose memory holds pages, and why not.
#pragma once

#include <memory>
#include <string>

#include "client/nccl/stream_ops.h"
#include "server/nccl/channel_registry.h"
#include "server/rpc/nccl_service.h"

namespace turbokv {

struct NcclOptions {
  StreamOps* streams = nullptr;  // of the devices, outlives the server; null: this build has none
  std::string library;           // empty: as NcclApi::Load finds it
  TransferLaneOptions lanes;
  absl::Duration transfer_timeout = absl::Seconds(30);
};

// Counts channels. `metrics` outlives it. Threads: any.
class ChannelMetrics final : public ChannelObserver {
 public:
  explicit ChannelMetrics(Metrics* metrics) : metrics_(metrics) {}
  void ChannelReserved() override;
  void ChannelClosed(const absl::Status& reason) override;

 private:
  Metrics* const metrics_;
};

// Never fails: `available` of the result tells why there are no channels. `observer` outlives it.
NcclEnvironment MakeNcclEnvironment(ServiceState* state, const NcclOptions& options,
                                    ChannelObserver* observer);

}  // namespace turbokv
