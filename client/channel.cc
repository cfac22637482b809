#include "client/channel.h"

#include <malloc.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
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
  return std::make_shared<CacheChannel>(options, std::move(channel));
}

CacheChannel::CacheChannel(ChannelOptions options, std::shared_ptr<grpc::Channel> channel)
    : options_(std::move(options)), channel_(std::move(channel)) {}

}  // namespace turbokv
