#include "server/rpc/service_state.h"

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "server/rpc/status_conversion.h"

namespace turbokv {
namespace {

constexpr char kRetryAfterKey[] = "retry-after-ms";
constexpr int kRetryAfterMs = 100;

int EncodeThreads(int configured) {
  if (configured > 0) return configured;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServiceState>> ServiceState::Create(
    const ServerConfig& config, std::vector<std::unique_ptr<Device>> devices) {
  auto storage = std::make_shared<Storage>();
  BlockCacheOptions options;
  options.budget_bytes = config.memory_bytes;
  options.slab_bytes = config.slab_bytes;
  options.default_lease = config.default_lease;
  options.max_lease = config.max_lease;
  options.shareable = !config.share_socket.empty();
  DevicePools pools;
  if (!devices.empty()) {
    DeviceSetOptions set_options;
    set_options.memory = config.gpu_memory;
    set_options.shareable = options.shareable;
    TURBOKV_ASSIGN_OR_RETURN(storage->devices, DeviceSet::Create(std::move(devices), set_options));
    pools = storage->devices->TakePools();
  }
  TURBOKV_ASSIGN_OR_RETURN(storage->cache,
                           BlockCache::Create(options, &storage->metrics, std::move(pools)));
  storage->metrics.SetUsageSource([cache = storage->cache.get()] { return cache->Usage(); });
  std::unique_ptr<ServiceState> state(new ServiceState(config, std::move(storage)));
  TURBOKV_RETURN_IF_ERROR(state->StartSharing());
  return state;
}

absl::Status ServiceState::StartSharing() {
  if (config_.share_socket.empty()) return absl::OkStatus();
  share_host_ = std::make_unique<CacheShareHost>(&cache());
  ShareServerOptions options;
  options.path = config_.share_socket;
  TURBOKV_ASSIGN_OR_RETURN(share_server_, ShareServer::Start(options, share_host_.get()));
  metrics().SetShareSource([server = share_server_.get()] {
    const ShareServerStats stats = server->stats();
    return ShareUsage{stats.sessions, stats.staging_bytes};
  });
  return absl::OkStatus();
}

bool ServiceState::LoseFailedDevices() {
  if (devices() == nullptr) return false;
  const std::vector<PoolId> failed = devices()->TakeFailed();
  for (const PoolId pool : failed) cache().LosePool(pool);
  return !failed.empty();
}

ServiceState::ServiceState(const ServerConfig& config, std::shared_ptr<Storage> storage)
    : config_(config),
      started_(absl::Now()),
      storage_(std::move(storage)),
      stores_("stores", config.max_concurrent_stores),
      fetches_("fetches", config.max_concurrent_fetches),
      encode_pool_(EncodeThreads(config.encode_threads)),
      encoder_(&encode_pool_, &storage_->metrics, config.distortion_sample_rate) {}

// The cache goes before the metrics, which may still answer a scrape.
ServiceState::~ServiceState() {
  storage_->metrics.SetUsageSource([] { return CacheUsage(); });
  storage_->metrics.SetShareSource([] { return ShareUsage(); });
}

absl::Duration ServiceState::uptime() const { return absl::Now() - started_; }

absl::Status ServiceState::CheckServing() const {
  if (!draining_) return absl::OkStatus();
  return absl::UnavailableError("the server is draining; it takes no new stores and lookups");
}

grpc::Status ServiceState::End(const char* method, const absl::Status& status,
                               grpc::CallbackServerContext* context) {
  metrics().CountRpc(method, status.code());
  if (absl::IsResourceExhausted(status)) {
    context->AddTrailingMetadata(kRetryAfterKey, absl::StrCat(kRetryAfterMs));
  }
  if (!status.ok() && LogEnabled(LogLevel::kDebug)) {
    Log(LogLevel::kDebug, "call failed",
        {{"method", method}, {"peer", context->peer()}, {"status", status.ToString()}});
  }
  return ToGrpcStatus(status);
}

}  // namespace turbokv
