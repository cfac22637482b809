// One client-streaming Store call, fed by one thread, sent in the background.
#pragma once

#include <deque>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "client/channel.h"
#include "client/prefill_writer.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "turbokv/v1/cache.pb.h"

namespace turbokv {

// What the server's answer says; the client's own fields are left as they are by default.
StoreResult ToStoreResult(const v1::StoreResponse& response);

// A thread of its own moves the bytes, so that they flow while the caller computes. (gRPC's
// callback API would start threads that stay, and that take the polling from every fetch of the
// process.) Used by one thread; destruction cancels what has not finished.
class StoreCall {
 public:
  StoreCall(std::shared_ptr<CacheChannel> channel, absl::Duration timeout);
  ~StoreCall();

  // Queues a message, and waits while kMaxQueuedBytes are queued. An error is the call's end, with
  // the server's reason.
  absl::Status Write(grpc::ByteBuffer message);

  // OK while the server takes messages; else as Write.
  absl::Status CheckOpen();

  // Closes this side and waits for the answer.
  absl::StatusOr<v1::StoreResponse> Finish();

 private:
  enum class Event : uintptr_t { kStarted, kWritten, kWritesDone, kAnswered, kFinished };
  static void* TagOf(Event event) { return reinterpret_cast<void*>(event); }

  void Poll();  // the thread
  void Handle(Event event, bool ok);
  // Starts the next write, if there is one.
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WaitForEnd();
  absl::Status EndedEarly();

  const std::shared_ptr<CacheChannel> channel_;
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue completions_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  grpc::ByteBuffer response_;

  Mutex mutex_;
  CondVar changed_;
  std::deque<grpc::ByteBuffer> queue_ ABSL_GUARDED_BY(mutex_);  // the first is being written
  size_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool started_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;  // the server will take nothing more
  bool answered_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status status_;  // gRPC's until done_
  std::thread thread_;
};

}  // namespace turbokv
