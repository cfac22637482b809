#include "server/rpc/nccl_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "server/rpc/nccl_reactor.h"

namespace turbokv {

NcclServiceImpl::NcclServiceImpl(ServiceState* state, NcclEnvironment environment)
    : state_(state),
      environment_(std::move(environment)),
      channels_(environment_.limits, environment_.observer),
      streams_("NCCL channels", static_cast<int>(environment_.limits.max_channels)) {
  state_->set_nccl(this);
}

NcclServiceImpl::~NcclServiceImpl() { state_->set_nccl(nullptr); }

absl::StatusOr<NcclServiceImpl::Transport> NcclServiceImpl::FindTransport(
    const ClientIdentity& owner, uint64_t channel_id) const {
  TURBOKV_ASSIGN_OR_RETURN(ServiceChannel end, channels_.FindForTransfers(owner, channel_id));
  for (const NcclDevice& device : environment_.devices) {
    if (device.pool == end.pool && device.lanes != nullptr)
      return Transport{std::move(end), &device};
  }
  return absl::FailedPreconditionError(
      absl::StrCat("channel_id ", channel_id, ": the memory of its GPU holds no pages"));
}

grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>* NcclServiceImpl::Connect(
    grpc::CallbackServerContext* context) {
  return new NcclReactor(this, context);
}

void NcclServiceImpl::Tick() {
  streams_.EndStalled(kNcclSilence);
  channels_.Reap();
}

absl::StatusOr<NcclDevice> NcclServiceImpl::ChooseDevice(absl::string_view client_uuid,
                                                         absl::string_view wanted_uuid) const {
  for (const NcclDevice& device : environment_.devices) {
    if (device.uuid == client_uuid) continue;  // NCCL does not connect a GPU with itself
    if (wanted_uuid.empty() || device.uuid == wanted_uuid) return device;
  }
  const std::string have = absl::StrJoin(
      environment_.devices, ", ",
      [](std::string* out, const NcclDevice& device) { absl::StrAppend(out, device.uuid); });
  return absl::FailedPreconditionError(absl::StrCat(
      "no GPU of the service for device_uuid '", client_uuid, "' and service_device_uuid '",
      wanted_uuid, "'; the service has ", have, ", and NCCL does not connect a GPU with itself"));
}

}  // namespace turbokv
