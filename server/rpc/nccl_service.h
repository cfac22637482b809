// The NCCL service: channels between GPUs of clients and of the service, one stream each.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/nccl/channel_registry.h"
#include "server/nccl/transfer_lanes.h"
#include "server/rpc/service_state.h"
#include "turbokv/v1/transport.grpc.pb.h"

namespace turbokv {

// An end that hears nothing for this long takes the other for dead. With a tick of a second, a
// channel is aborted within 5 seconds of the silence.
inline constexpr absl::Duration kNcclSilence = absl::Seconds(3);

struct NcclDevice {
  int index = 0;                         // as CUDA counts
  std::string uuid;                      // "GPU-..."
  PoolId pool = kHostPool;               // what its memory holds pages as
  std::shared_ptr<TransferLanes> lanes;  // null: its channels carry no stores and fetches
};

struct NcclEnvironment {
  // Why there are no channels here: Connect answers with it. With OK, the rest is set.
  absl::Status available;
  std::shared_ptr<const NcclApi> api;
  StreamOps* streams = nullptr;     // outlives the service
  std::vector<NcclDevice> devices;  // those that hold pages
  ChannelLimits limits;
  ChannelObserver* observer = nullptr;  // may be null
  absl::Duration connect_timeout = absl::Seconds(30);
  absl::Duration transfer_timeout = absl::Seconds(30);
};

// Threads: any.
class NcclServiceImpl final
    : public v1::NcclService::WithCallbackMethod_Connect<v1::NcclService::Service> {
 public:
  NcclServiceImpl(ServiceState* state, NcclEnvironment environment);
  ~NcclServiceImpl() override;

  grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>* Connect(
      grpc::CallbackServerContext* context) override;

  // Ends streams whose client is silent and lets go of channels that have ended. At least once a
  // second.
  void Tick();

  ServiceState& state() { return *state_; }
  const NcclEnvironment& environment() const { return environment_; }
  ChannelRegistry& channels() { return channels_; }
  StreamRegistry& streams() { return streams_; }

  // The channel of a store or a fetch, and the lanes of its GPU. NOT_FOUND, UNAVAILABLE as
  // ChannelRegistry::Find; FAILED_PRECONDITION: the GPU's memory holds no pages.
  struct Transport {
    ServiceChannel end;
    const NcclDevice* device = nullptr;
  };
  absl::StatusOr<Transport> FindTransport(const ClientIdentity& owner, uint64_t channel_id) const;

  // The device of the service for a client with device `client_uuid` that wants `wanted_uuid`
  // (empty: any). FAILED_PRECONDITION names both and what there is.
  absl::StatusOr<NcclDevice> ChooseDevice(absl::string_view client_uuid,
                                          absl::string_view wanted_uuid) const;

 private:
  ServiceState* const state_;
  const NcclEnvironment environment_;
  ChannelRegistry channels_;
  StreamRegistry streams_;
};

}  // namespace turbokv
