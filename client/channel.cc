#include "client/channel.h"

#include <malloc.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/host_id.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "client/server_description.h"
#include "client/shared_memory.h"
#include "client/wire/identity.h"
#include "client/wire/transport_options.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace turbokv {
namespace {

constexpr int kMaxHeapChunkBytes = 4 << 20;
constexpr int kKeptHeapBytes = 64 << 20;
constexpr int kKeepaliveMs = 30'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
constexpr absl::Duration kReopenInterval = absl::Seconds(5);

grpc::ChannelArguments ClientArguments() {
  grpc::ChannelArguments arguments;
  ForEachTransportArgument([&](const char* name, int value) { arguments.SetInt(name, value); });
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  // A connection of its own for each channel: bulk streams do not share one socket by accident.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return arguments;
}

}  // namespace

void TuneHeapForBulk() {
  mallopt(M_MMAP_THRESHOLD, kMaxHeapChunkBytes);
  mallopt(M_TRIM_THRESHOLD, kKeptHeapBytes);
}

absl::StatusOr<std::shared_ptr<CacheChannel>> CacheChannel::Connect(const ChannelOptions& options) {
  TURBOKV_RETURN_IF_ERROR(CheckIdentityName("tenant", options.tenant));
  TURBOKV_RETURN_IF_ERROR(CheckIdentityName("client id", options.client_id));
  std::shared_ptr<grpc::Channel> channel = grpc::CreateCustomChannel(
      options.address, grpc::InsecureChannelCredentials(), ClientArguments());
  const absl::Time deadline = absl::Now() + options.connect_timeout;
  if (!channel->WaitForConnected(absl::ToChronoTime(deadline))) {
    return absl::UnavailableError(absl::StrCat("no turbokvd answers at ", options.address,
                                               " within ",
                                               absl::FormatDuration(options.connect_timeout)));
  }
  auto connected = std::make_shared<CacheChannel>(options, std::move(channel));
  TURBOKV_RETURN_IF_ERROR(connected->ChooseRoad());
  return connected;
}

CacheChannel::CacheChannel(ChannelOptions options, std::shared_ptr<grpc::Channel> channel)
    : options_(std::move(options)), channel_(std::move(channel)) {}

CacheChannel::~CacheChannel() = default;

absl::Status CacheChannel::ChooseRoad() {
  if (options_.transport == Road::kGrpc) {
    roads_.why = "asked for";
    return absl::OkStatus();
  }
  RoadFacts facts;
  absl::StatusOr<std::shared_ptr<SharedMemory>> memory = OpenSharedMemory(&facts);
  facts.share = memory.status();
  TURBOKV_ASSIGN_OR_RETURN(roads_, turbokv::ChooseRoad(facts, options_.transport));
  LogInfo("connected",
          {{"address", options_.address}, {"road", RoadName(roads_.taken)}, {"why", roads_.why}});
  MutexLock lock(&mutex_);
  if (roads_.taken == Road::kShm) shared_memory_ = *std::move(memory);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<SharedMemory>> CacheChannel::OpenSharedMemory(
    RoadFacts* facts) const {
  const absl::StatusOr<ServerDescription> server = DescribeServer(*this, options_.connect_timeout);
  facts->described = server.status();
  if (!server.ok()) return server.status();
  const std::string host_id = HostId();
  facts->same_host = !host_id.empty() && server->host_id == host_id;
  facts->share_socket = server->share_socket;
  if (!facts->same_host || server->share_socket.empty()) {
    return absl::FailedPreconditionError("the server shares no memory with this host");
  }
  const std::string& path =
      options_.share_socket.empty() ? server->share_socket : options_.share_socket;
  return SharedMemory::Open(path, {options_.tenant, options_.client_id},
                            server->pools.front().slabs);
}

std::shared_ptr<SharedMemory> CacheChannel::shared_memory() {
  if (roads_.taken != Road::kShm) return nullptr;
  MutexLock lock(&mutex_);
  if (shared_memory_ != nullptr && shared_memory_->alive()) return shared_memory_;
  shared_memory_ = nullptr;
  const absl::Time now = absl::Now();
  if (now < next_attempt_) return nullptr;
  RoadFacts facts;
  absl::StatusOr<std::shared_ptr<SharedMemory>> opened = OpenSharedMemory(&facts);
  if (opened.ok()) {
    shared_memory_ = *std::move(opened);
  } else {
    next_attempt_ = now + kReopenInterval;
    LogWarning("memory is not shared for now; calls go by gRPC",
               {{"address", options_.address}, {"reason", opened.status().message()}});
  }
  return shared_memory_;
}

void CacheChannel::DropSharedMemory(const SharedMemory* memory) {
  MutexLock lock(&mutex_);
  if (shared_memory_.get() == memory) shared_memory_ = nullptr;
}

}  // namespace turbokv
