// One session with turbokvd's sharing socket, and the memory that is mapped by it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "client/share/mapped_pool.h"
#include "client/share/share_session.h"
#include "client/share/shared_staging.h"

namespace turbokv {

// Threads: any. What is mapped stays readable while this lives, whatever becomes of the server.
class SharedMemory {
 public:
  // `host_pool`: how the server's host memory is cut. Errors as ShareSession::Connect.
  static absl::StatusOr<std::shared_ptr<SharedMemory>> Open(const std::string& socket_path,
                                                            const ShareIdentity& identity,
                                                            const SlabGeometry& host_pool);

  // For the messages of gRPC calls.
  uint64_t session_id() const { return session_->session_id(); }
  // False once the server has gone: then this is of no more use for calls.
  bool alive() const { return session_->alive(); }

  MappedPool& host_pool() { return *host_pool_; }

  // Slots to send K/V and pages through; opened by the first call. RESOURCE_EXHAUSTED: the server
  // gives no more staging memory.
  absl::StatusOr<StagingClient*> Staging();

 private:
  SharedMemory(std::shared_ptr<ShareSession> session, std::unique_ptr<MappedPool> host_pool)
      : session_(std::move(session)), host_pool_(std::move(host_pool)) {}

  const std::shared_ptr<ShareSession> session_;
  const std::unique_ptr<MappedPool> host_pool_;
  Mutex mutex_;
  std::unique_ptr<StagingClient> staging_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv
