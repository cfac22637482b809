// turbokvd as an object: the cache behind gRPC, with metrics, health and reflection.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "grpcpp/server.h"
#include "server/config/config.h"
#include "server/rpc/admin_service.h"
#include "server/rpc/cache_service.h"
#include "server/rpc/nccl_service.h"
#include "server/rpc/nccl_setup.h"
#include "server/rpc/service_state.h"

namespace turbokv {

// Threads: any.
class Server {
 public:
  // Listens. UNAVAILABLE names the address that is taken; otherwise what the settings make
  // impossible.
  // `devices` are the GPUs whose memory config.gpu_memory speaks of; `nccl`, how to reach those of
  // workers.
  static absl::StatusOr<std::unique_ptr<Server>> Start(
      const ServerConfig& config, std::vector<std::unique_ptr<Device>> devices = {},
      const NcclOptions& nccl = {});
  // Drains with no time to spare, unless Drain was called.
  ~Server();

  // The port in use, e.g. after listening on port 0; 0 for a unix socket.
  int port() const { return port_; }
  // Precondition: metrics_listen is set (an embedded server may leave it empty).
  int metrics_port() { return state_->metrics().port(); }
  // For tests, and for tools in the same process.
  BlockCache& cache() { return state_->cache(); }
  Metrics& metrics() { return state_->metrics(); }
  NcclServiceImpl& nccl_service() { return nccl_service_; }

  // Health becomes NOT_SERVING, new stores and lookups are UNAVAILABLE; returns when the streams
  // under way have ended, or were cut after `timeout`. Once.
  void Drain(absl::Duration timeout);

 private:
  Server(std::unique_ptr<ServiceState> state, const NcclOptions& nccl);

  absl::Status Listen();
  void SetReady(bool ready);
  void Tick();
  void AwaitStreams(absl::Time deadline);
  void StopTicking();

  std::unique_ptr<ServiceState> state_;
  ChannelMetrics channel_metrics_;
  NcclServiceImpl nccl_service_;
  CacheServiceImpl cache_service_;
  AdminServiceImpl admin_service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;

  Mutex mutex_;
  CondVar stop_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread ticker_;
};

}  // namespace turbokv
