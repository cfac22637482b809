// One Fetch call whose blocks go over an NCCL channel: tells of each transfer as it is sent; the
// tail follows as data.
//
// It waits for transfers of other calls, so it has a thread of its own.
#pragma once

#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/nccl/page_sender.h"
#include "server/rpc/service_state.h"
#include "turbokv/v1/cache.pb.h"

namespace turbokv {

// Deletes itself when the call is over.
class NcclFetchReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                               public WatchedStream {
 public:
  NcclFetchReactor(ServiceState* state, grpc::CallbackServerContext* context,
                   v1::FetchRequest request);

  void OnStalled() override;

 private:
  ~NcclFetchReactor() override = default;

  void OnWriteDone(bool ok) override;
  void OnDone() override;

  // The thread.
  absl::Status Run();
  absl::StatusOr<std::unique_ptr<PageSender>> OpenSender(const ClientIdentity& owner);
  absl::Status SendBlocks(PageSender* sender);
  absl::Status SendTail(std::shared_ptr<const LeaseInfo> lease);
  // Writes a message and waits until it is on its way. CANCELLED: the client has gone.
  absl::Status Write(const grpc::ByteBuffer& message);
  void End(const absl::Status& status);

  ServiceState* const state_;
  grpc::CallbackServerContext* const context_;
  const v1::FetchRequest request_;
  const absl::Time start_;
  grpc::ByteBuffer message_;  // gRPC's while it is written

  Mutex mutex_;
  CondVar written_;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool write_failed_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace turbokv
