// What the calls of one server share.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/thread_pool.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "server/config/config.h"
#include "server/index/block_cache.h"
#include "server/ingest/device_set.h"
#include "server/ingest/page_encoder.h"
#include "server/ingest/staging_budget.h"
#include "server/ingest/store_session.h"
#include "server/rpc/stream_registry.h"
#include "server/share/cache_share_host.h"
#include "server/share/share_server.h"
#include "server/telemetry/metrics.h"

namespace turbokv {

class NcclServiceImpl;

// Kept by the server, and by the memory that gRPC still sends after a call has ended.
struct Storage {
  Metrics metrics;
  std::unique_ptr<DeviceSet> devices;  // null: host memory only
  std::unique_ptr<BlockCache> cache;
};

class ServiceState {
 public:
  // The memory of `devices` becomes pools, as config.gpu_memory says.
  static absl::StatusOr<std::unique_ptr<ServiceState>> Create(
      const ServerConfig& config, std::vector<std::unique_ptr<Device>> devices);
  ~ServiceState();

  const ServerConfig& config() const { return config_; }
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  BlockCache& cache() { return *storage_->cache; }
  Metrics& metrics() { return storage_->metrics; }
  DeviceSet* devices() { return storage_->devices.get(); }
  // Null: nothing is shared.
  CacheShareHost* share_host() { return share_host_.get(); }
  ShareServer* share_server() { return share_server_.get(); }
  // Null: there is no NcclService. It sets and clears this while no call is under way.
  NcclServiceImpl* nccl() { return nccl_; }
  void set_nccl(NcclServiceImpl* nccl) { nccl_ = nccl; }
  ThreadPool& encode_pool() { return encode_pool_; }
  StreamRegistry& stores() { return stores_; }
  StreamRegistry& fetches() { return fetches_; }
  StoreEnvironment store_environment() {
    return {&cache(), &metrics(), &encoder_, &staging_, devices()};
  }

  absl::Duration uptime() const;
  bool draining() const { return draining_; }
  void StartDraining() { draining_ = true; }
  // UNAVAILABLE while draining.
  absl::Status CheckServing() const;

  // Loses the pools of devices that have failed since the last call; true when there are any.
  bool LoseFailedDevices();

  // What every call ends with: counts it, adds the retry hint, and converts the status.
  grpc::Status End(const char* method, const absl::Status& status,
                   grpc::CallbackServerContext* context);

 private:
  ServiceState(const ServerConfig& config, std::shared_ptr<Storage> storage);
  absl::Status StartSharing();

  const ServerConfig config_;
  const absl::Time started_;
  const std::shared_ptr<Storage> storage_;
  StagingBudget staging_;
  StreamRegistry stores_;
  StreamRegistry fetches_;
  std::atomic<bool> draining_{false};
  ThreadPool encode_pool_;
  PageEncoder encoder_;
  NcclServiceImpl* nccl_ = nullptr;
  std::unique_ptr<CacheShareHost> share_host_;
  std::unique_ptr<ShareServer> share_server_;  // goes before its host
};

}  // namespace turbokv
