// One Fetch call: verifies the next chunk while the one before is being written.
#pragma once

#include <atomic>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/ingest/page_run.h"
#include "server/rpc/fetch_message.h"
#include "server/rpc/service_state.h"

namespace turbokv {

// Deletes itself when the call is over. At most two chunks exist at a time, both as references into
// the pool: a client that stops reading costs no memory, only what its lease pins.
class FetchReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer>, public WatchedStream {
 public:
  FetchReactor(ServiceState* state, grpc::CallbackServerContext* context,
               const grpc::ByteBuffer* request);

  void OnStalled() override;

 private:
  ~FetchReactor() override = default;

  void OnWriteDone(bool ok) override;
  void OnDone() override;

  absl::Status Open(const grpc::ByteBuffer& request);
  // Fills next_ and next_status_ with the chunk after the current one.
  void Prepare();
  // Writes prepared chunks until one has to be waited for.
  void Pump();
  // A write has ended or a chunk is prepared; true for the later of the two.
  bool BothDone() { return outstanding_.fetch_sub(1) == 1; }
  void CountWritten();
  void End(const absl::Status& status);

  ServiceState* const state_;
  grpc::CallbackServerContext* const context_;
  const absl::Time start_;
  std::shared_ptr<const void> pages_;  // holds the lease's pages and the pool
  std::optional<PageRun> run_;
  std::atomic<int> outstanding_{0};
  std::atomic<bool> write_failed_{false};
  FetchMessage current_;
  std::optional<FetchMessage> next_;
  absl::Status next_status_;
  bool first_layer_written_ = false;
};

}  // namespace turbokv
