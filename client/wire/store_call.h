// One client-streaming Store call, driven by one thread, sent in the background.
#pragma once

#include <deque>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "client/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "turbokv/v1/cache.pb.h"

namespace turbokv {

// gRPC's own threads move the bytes, so that they flow while the caller computes. Used by one
// thread; destruction cancels what has not finished.
class StoreCall final : private grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  StoreCall(std::shared_ptr<CacheChannel> channel, absl::Duration timeout);
  ~StoreCall();

  // Queues a message, and waits while kMaxQueuedBytes are queued. An error is the call's end, with
  // the server's reason.
  absl::Status Write(grpc::ByteBuffer message);

  // Closes this side and waits for the answer.
  absl::StatusOr<v1::StoreResponse> Finish();

 private:
  void OnWriteDone(bool ok) override;
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

  // Starts the next write, if there is one.
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LetGo();  // allows OnDone; once
  absl::Status WaitForEnd();

  const std::shared_ptr<CacheChannel> channel_;
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub_;
  grpc::ClientContext context_;
  grpc::ByteBuffer response_;
  bool held_ = true;

  Mutex mutex_;
  CondVar changed_;
  std::deque<grpc::ByteBuffer> queue_ ABSL_GUARDED_BY(mutex_);  // the first is being written
  size_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;  // the server will take nothing more
  bool answered_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv
