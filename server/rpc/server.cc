#include "server/rpc/server.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "client/wire/transport_options.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"

namespace turbokv {
namespace {

constexpr absl::Duration kMaxTick = absl::Seconds(1);
constexpr absl::Duration kMinTick = absl::Milliseconds(20);
constexpr absl::Duration kDrainPoll = absl::Milliseconds(20);
constexpr absl::Duration kShortCallGrace = absl::Milliseconds(500);
constexpr int kKeepaliveMs = 30'000;
constexpr int kMinPingIntervalMs = 10'000;
constexpr int kMaxStreamsPerConnection = 1024;

void SetTransport(const ServerConfig& config, grpc::ServerBuilder* builder) {
  ForEachTransportArgument(
      [&](const char* name, int value) { builder->AddChannelArgument(name, value); });
  // Two servers on one port would share its connections silently; better to fail.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  // Also TCP's limit on a closed receive window: a client that pauses is not dead before a stream
  // would count as stalled.
  const absl::Duration patience = std::max(config.stall_timeout, absl::Seconds(20));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                              static_cast<int>(absl::ToInt64Milliseconds(patience)));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kMinPingIntervalMs);
  // Only reflection runs on synchronous threads.
  builder->SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder->SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder->SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerConfig& config,
                                                      std::vector<std::unique_ptr<Device>> devices,
                                                      const NcclOptions& nccl) {
  TURBOKV_ASSIGN_OR_RETURN(std::unique_ptr<ServiceState> state,
                           ServiceState::Create(config, std::move(devices)));
  std::unique_ptr<Server> server(new Server(std::move(state), nccl));
  TURBOKV_RETURN_IF_ERROR(server->Listen());
  return server;
}

Server::Server(std::unique_ptr<ServiceState> state, const NcclOptions& nccl)
    : state_(std::move(state)),
      channel_metrics_(&state_->metrics()),
      nccl_service_(state_.get(), MakeNcclEnvironment(state_.get(), nccl, &channel_metrics_)),
      cache_service_(state_.get()),
      admin_service_(state_.get()) {}

Server::~Server() {
  if (server_ != nullptr) Drain(absl::ZeroDuration());
}

absl::Status Server::Listen() {
  const ServerConfig& config = state_->config();
  if (!config.metrics_listen.empty()) {
    TURBOKV_RETURN_IF_ERROR(state_->metrics().Serve(config.metrics_listen));
  }
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetTransport(config, &builder);
  builder.AddListeningPort(config.listen, grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(&cache_service_);
  builder.RegisterService(&admin_service_);
  builder.RegisterService(&nccl_service_);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", config.listen,
                     ": the port is in use, or the address is not one of this machine"));
  }
  ticker_ = std::thread([this] { Tick(); });
  return absl::OkStatus();
}

void Server::SetReady(bool ready) {
  if (auto* health = server_->GetHealthCheckService()) health->SetServingStatus(ready);
}

void Server::Tick() {
  const absl::Duration stall_timeout = state_->config().stall_timeout;
  const absl::Duration period = std::clamp(stall_timeout / 4, kMinTick, kMaxTick);
  MutexLock lock(&mutex_);
  while (!stopping_) {
    stop_.wait_for(mutex_, absl::ToChronoMilliseconds(period));
    state_->cache().ExpireLeases();
    // Not ready any more; what is held elsewhere is still served.
    if (state_->LoseFailedDevices()) SetReady(false);
    state_->stores().EndStalled(stall_timeout);
    state_->fetches().EndStalled(stall_timeout);
    nccl_service_.Tick();
  }
}

void Server::StopTicking() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  stop_.notify_all();
  if (ticker_.joinable()) ticker_.join();
}

void Server::AwaitStreams(absl::Time deadline) {
  while (state_->stores().active() + state_->fetches().active() > 0 && absl::Now() < deadline) {
    absl::SleepFor(kDrainPoll);
  }
}

void Server::Drain(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  state_->StartDraining();
  SetReady(false);
  AwaitStreams(deadline);
  nccl_service_.channels().CloseAll(absl::UnavailableError("the service drains"));
  // Idle clients may take seconds to notice; only short calls can still be under way.
  server_->Shutdown(
      absl::ToChronoTime(std::min(std::max(deadline, absl::Now()), absl::Now() + kShortCallGrace)));
  server_->Wait();
  AwaitStreams(absl::InfiniteFuture());  // their last steps, on threads of gRPC
  StopTicking();
  server_.reset();
}

}  // namespace turbokv
