// One server-streaming Fetch call, whose thread waits for the bytes itself.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "turbokv/v1/cache.pb.h"

namespace turbokv {

// The calling thread polls the socket, so that a message is not handed from thread to thread.
// Used by one thread; destruction cancels what has not finished.
class FetchCall {
 public:
  FetchCall(std::shared_ptr<CacheChannel> channel, absl::Duration timeout,
            const v1::FetchRequest& request);
  ~FetchCall();

  // False at the end of the stream; Finish tells why it ended.
  bool Read(grpc::ByteBuffer* message);
  absl::Status Finish();

 private:
  bool Await();  // the only outstanding operation

  const std::shared_ptr<CacheChannel> channel_;
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  bool alive_ = true;
  bool finished_ = false;
};

}  // namespace turbokv
