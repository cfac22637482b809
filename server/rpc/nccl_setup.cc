#include "server/rpc/nccl_setup.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

absl::Status CheckWanted(ServiceState* state, const NcclOptions& options) {
  if (!state->config().nccl) {
    return absl::FailedPreconditionError("NCCL channels are off (setting nccl)");
  }
  if (state->devices() == nullptr) {
    return absl::FailedPreconditionError("no GPU memory holds pages (setting gpu_memory)");
  }
  if (options.streams == nullptr) {
    return absl::FailedPreconditionError("this build of turbokvd has no CUDA");
  }
  return absl::OkStatus();
}

absl::Status Fill(ServiceState* state, const NcclOptions& options, NcclEnvironment* environment) {
  TURBOKV_RETURN_IF_ERROR(CheckWanted(state, options));
  TURBOKV_ASSIGN_OR_RETURN(environment->api, NcclApi::Load(options.library));
  for (size_t i = 1; i <= state->devices()->size(); ++i) {
    const auto pool = static_cast<PoolId>(i);
    PoolDevice* const device = state->devices()->device(pool);
    TURBOKV_ASSIGN_OR_RETURN(
        std::shared_ptr<TransferLanes> lanes,
        TransferLanes::Create(device->device.get(), device->io.get(), options.lanes));
    const DeviceInfo& info = device->device->info();
    environment->devices.push_back({info.index, info.uuid, pool, std::move(lanes)});
  }
  return absl::OkStatus();
}

}  // namespace

void ChannelMetrics::ChannelReserved() { metrics_->AddNcclChannels(1); }

void ChannelMetrics::ChannelClosed(const absl::Status& reason) {
  metrics_->AddNcclChannels(-1);
  if (!absl::IsCancelled(reason)) metrics_->CountNcclAbort();
}

NcclEnvironment MakeNcclEnvironment(ServiceState* state, const NcclOptions& options,
                                    ChannelObserver* observer) {
  NcclEnvironment environment;
  environment.streams = options.streams;
  environment.observer = observer;
  environment.transfer_timeout = options.transfer_timeout;
  const absl::Status filled = Fill(state, options, &environment);
  if (filled.ok()) {
    LogInfo("NCCL channels are offered",
            {{"version", environment.api->version_text()}, {"library", environment.api->path()}});
    return environment;
  }
  // To clients, whatever it is, it is the state of this service.
  environment.available = absl::FailedPreconditionError(
      absl::StrCat("the service has no NCCL channels: ", filled.message()));
  environment.devices.clear();
  if (state->config().nccl && state->devices() != nullptr) {
    LogWarning("no NCCL channels", {{"reason", filled.message()}});
  }
  return environment;
}

}  // namespace turbokv
