// One Store call: reads messages, hands them to a session, answers.
//
// Raw K/V is processed on the encode threads; encoded pages, which are only copied and checked, on
// the thread that read them; a store with an NCCL channel on a thread of its own, since it waits
// for transfers of other calls.
//
// States, guarded by mutex_: at most one message is being processed (busy_), and at most one more
// has been read (queued_); a third is read only when there is room for it. That bounds the memory
// of a stream and keeps its chunks in order.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/nccl/run_receiver.h"
#include "server/rpc/service_state.h"
#include "turbokv/v1/cache.pb.h"

namespace turbokv {

// Deletes itself when the call is over.
class StoreReactor final : public grpc::ServerReadReactor<grpc::ByteBuffer>, public WatchedStream {
 public:
  StoreReactor(ServiceState* state, grpc::CallbackServerContext* context,
               grpc::ByteBuffer* response);

  void OnStalled() override;
  bool IsBroken() const override { return *transfer_failed_; }

 private:
  ~StoreReactor() override = default;

  void OnReadDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // What is to be processed next: a message, or (none) the end of the stream.
  struct Job {
    std::optional<grpc::ByteBuffer> message;
  };
  // Starts reading, and takes the next job, if they can go on.
  std::optional<Job> Step() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Processes jobs one after the other, here or on an encode thread. Only one job is under way at a
  // time. The reactor may be gone when they return.
  void Run(std::optional<Job> job);
  void RunOnThread(Job job);
  ThreadPool* JobThreads();
  std::optional<Job> Work(const Job& job);
  absl::Status Process(const grpc::ByteBuffer& message);
  absl::Status Open(const v1::StoreOpen& open);
  absl::Status OpenStaging(const ClientIdentity& owner, uint64_t session_id);
  absl::StatusOr<std::optional<PoolId>> OpenReceiver(const ClientIdentity& owner,
                                                     uint64_t channel_id);
  absl::Status AddRun(const v1::StoreChunk& chunk);
  // A chunk whose bytes lie in the client's staging memory.
  absl::Status AddStaged(const v1::StagedBytes& staged, StoreChunk chunk);
  absl::Status Publish();

  ServiceState* const state_;
  grpc::CallbackServerContext* const context_;
  grpc::ByteBuffer* const response_;
  const absl::Time start_;
  grpc::ByteBuffer read_buffer_;
  v1::StoreRequest fields_;
  std::unique_ptr<StoreSession> session_;   // touched by jobs alone
  std::shared_ptr<StagingRegion> staging_;  // of the share session, if there is one; as session_
  std::unique_ptr<RunReceiver> receiver_;   // with an NCCL channel; fills session_'s pages; as it
  std::unique_ptr<ThreadPool> thread_;      // likewise
  const std::shared_ptr<std::atomic<bool>> transfer_failed_ =
      std::make_shared<std::atomic<bool>>(false);
  bool encodes_ = true;  // until the announcement says otherwise; as session_

  Mutex mutex_;
  std::deque<grpc::ByteBuffer> queue_ ABSL_GUARDED_BY(mutex_);
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;  // the client has closed its side
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace turbokv
