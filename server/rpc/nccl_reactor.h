// One Connect call of NcclService: its life is that of the channel.
//
// States, guarded by mutex_: at most one read and one write are under way. The channel is made by
// the first message and belongs to the registry; its callbacks reach the reactor through Link,
// which is cut when the call is over.
#pragma once

#include <deque>
#include <memory>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "grpcpp/support/server_callback.h"
#include "server/rpc/nccl_service.h"
#include "server/rpc/stream_registry.h"

namespace turbokv {

// Deletes itself when the call is over.
class NcclReactor final : public grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>,
                          public WatchedStream {
 public:
  NcclReactor(NcclServiceImpl* service, grpc::CallbackServerContext* context);

  void OnStalled() override;

 private:
  // What the channel's callbacks hold.
  struct Link {
    Mutex mutex;
    NcclReactor* reactor ABSL_GUARDED_BY(mutex) = nullptr;  // null: the call is over
  };

  ~NcclReactor() override = default;

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  absl::Status Handle(const v1::ConnectRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Open(const v1::NcclHello& hello) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckVersion(const v1::NcclHello& hello) const;
  // The channel's, on its thread.
  void OnConnected();
  void OnChannelEnded(const absl::Status& status);

  // Queues a message; writes it when nothing else is being written.
  void Send(v1::ConnectResponse response) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Closes the channel and finishes the call.
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  NcclServiceImpl* const service_;
  grpc::CallbackServerContext* const context_;
  const std::shared_ptr<Link> link_;
  v1::ConnectRequest request_;  // gRPC's while a read is under way

  Mutex mutex_;
  std::deque<v1::ConnectResponse> queue_ ABSL_GUARDED_BY(mutex_);  // the first is being written
  uint64_t channel_id_ ABSL_GUARDED_BY(mutex_) = 0;                // 0: no hello yet
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace turbokv
