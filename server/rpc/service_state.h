// What the calls of one server share.
#pragma once

#include <atomic>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/thread_pool.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "server/config/config.h"
#include "server/index/block_cache.h"
#include "server/ingest/page_encoder.h"
#include "server/ingest/staging_budget.h"
#include "server/ingest/store_session.h"
#include "server/rpc/stream_registry.h"
#include "server/telemetry/metrics.h"

namespace turbokv {

// Kept by the server, and by the memory that gRPC still sends after a call has ended.
struct Storage {
  Metrics metrics;
  std::unique_ptr<BlockCache> cache;
};

class ServiceState {
 public:
  static absl::StatusOr<std::unique_ptr<ServiceState>> Create(const ServerConfig& config);
  ~ServiceState();

  const ServerConfig& config() const { return config_; }
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  BlockCache& cache() { return *storage_->cache; }
  Metrics& metrics() { return storage_->metrics; }
  ThreadPool& encode_pool() { return encode_pool_; }
  StreamRegistry& stores() { return stores_; }
  StreamRegistry& fetches() { return fetches_; }
  StoreEnvironment store_environment() { return {&cache(), &metrics(), &encoder_, &staging_}; }

  absl::Duration uptime() const;
  bool draining() const { return draining_; }
  void StartDraining() { draining_ = true; }
  // UNAVAILABLE while draining.
  absl::Status CheckServing() const;

  // What every call ends with: counts it, adds the retry hint, and converts the status.
  grpc::Status End(const char* method, const absl::Status& status,
                   grpc::CallbackServerContext* context);

 private:
  ServiceState(const ServerConfig& config, std::shared_ptr<Storage> storage);

  const ServerConfig config_;
  const absl::Time started_;
  const std::shared_ptr<Storage> storage_;
  StagingBudget staging_;
  StreamRegistry stores_;
  StreamRegistry fetches_;
  std::atomic<bool> draining_{false};
  ThreadPool encode_pool_;
  PageEncoder encoder_;
};

}  // namespace turbokv
