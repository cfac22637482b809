// A two-rank communicator in NCCL's non-blocking mode, each call of which returns soon.
//
// NCCL is not thread safe: everything here, destruction included, is for one thread.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/nccl/nccl_api.h"
#include "client/nccl/stream_ops.h"

namespace turbokv {

enum class NcclDirection : uint8_t { kSend, kReceive };

// One run of device memory. The peer has a piece of the same size at the same place of its list.
struct NcclPiece {
  uint8_t* device = nullptr;  // only read from when sent
  size_t bytes = 0;
};

class NcclCommunicator {
 public:
  // Begins to connect; Progress tells when that is done. Rank 0 or 1. INTERNAL, UNAVAILABLE: what
  // NCCL says.
  static absl::StatusOr<std::unique_ptr<NcclCommunicator>> Start(std::shared_ptr<const NcclApi> api,
                                                                 const NcclUniqueId& unique_id,
                                                                 int rank);
  // Aborts what has not been closed.
  ~NcclCommunicator();

  // Whether the last Start, Launch or Finalize has gone through. An error of the communicator,
  // also one that came later: nothing more works.
  absl::StatusOr<bool> Progress();

  // Enqueues all pieces as one group on `stream`. The work is on the stream once Progress says so;
  // until then neither the stream nor this may be used for anything else.
  absl::Status Launch(NcclDirection direction, absl::Span<const NcclPiece> pieces, void* stream);

  // Begins an orderly end: everything launched must have finished. Then Progress, then Destroy.
  absl::Status Finalize();
  // After Finalize has gone through.
  absl::Status Destroy();
  // Stops what is under way, on the device too, and frees everything. Never fails: there is nothing
  // left to do about it.
  void Abort();

 private:
  NcclCommunicator(std::shared_ptr<const NcclApi> api, int rank)
      : api_(std::move(api)), rank_(rank) {}
  absl::Status Check(NcclResult result, absl::string_view call) const;

  const std::shared_ptr<const NcclApi> api_;
  const int rank_;
  NcclComm comm_ = nullptr;
};

}  // namespace turbokv
