// Raw pages in pinned memory into pages in device memory.
//
// A page is copied to the device, encoded there, and its staging slot released. Up to `lanes`
// batches are on their way at once, each on a stream of its own, so that copies of one run beside
// the encoding of another. Pages that wait together and follow each other in a layer of one store
// form a batch: one launch for all.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "kernels/format/page_header.h"
#include "kernels/kv_view.h"
#include "server/device/device.h"
#include "server/device/encode_completion.h"
#include "server/device/staging_ring.h"

namespace turbokv {

struct EncodeTarget {
  const PageLayout* layout = nullptr;  // outlives the encoding
  uint8_t* device_page = nullptr;
};

// A whole page: 128 tokens. `slot` begins with K [128][kv_heads][head_dim]; V follows at once.
struct EncodeRequest {
  StagingRing::Slot slot;
  ValueType type = ValueType::kBf16;
  PageIdentity identity;
  // The block's page and the tail's, say: at least one, all of the same kv_heads and head_dim.
  absl::InlinedVector<EncodeTarget, 2> targets;
};

struct DeviceEncoderOptions {
  size_t max_page_bytes = 0;  // of raw pages, K and V
  int lanes = 4;
  int pages_per_batch = 8;
};

// Threads: any.
class DeviceEncoder {
 public:
  // Allocates lanes x pages_per_batch x max_page_bytes of device memory. `device` outlives this.
  static absl::StatusOr<std::unique_ptr<DeviceEncoder>> Create(Device* device,
                                                               const DeviceEncoderOptions& options);
  // Finishes what was submitted.
  ~DeviceEncoder();

  // Returns at once; `completion` counts the page until it is encoded, or not: then the slot is
  // free again. Errors, at `completion`: INVALID_ARGUMENT names tensor, layer, absolute token, head
  // and channel of a NaN or infinity; else the device's.
  void Submit(EncodeRequest request, EncodeCompletion* completion);

  struct Stats {
    uint64_t pages = 0;  // finished, in error or not
    uint64_t batches = 0;
    int64_t waiting_pages = 0;  // on no lane yet
  };
  Stats stats() const;

 private:
  struct Page {
    EncodeRequest request;
    EncodeCompletion* completion = nullptr;
  };
  // Members are destroyed in the reverse order: the stream, which waits for its work, first.
  struct Lane {
    std::unique_ptr<DeviceBuffer> device_staging;  // K of all pages of the batch, then V
    std::vector<Page> batch;
    std::vector<DeviceVerdict> verdicts;  // by target
    absl::Status status;
    std::unique_ptr<DeviceStream> stream;
  };

  explicit DeviceEncoder(const DeviceEncoderOptions& options) : options_(options) {}
  absl::Status MakeLanes(Device* device);

  void Run();
  // Waits for something to do, and does it; false when there never will be.
  bool Step();
  std::vector<Page> TakeBatchLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Launch(Lane* lane);
  static absl::Status Enqueue(Lane* lane);
  void Finish(Lane* lane);

  const DeviceEncoderOptions options_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<Page> waiting_ ABSL_GUARDED_BY(mutex_);
  std::vector<Lane*> idle_ ABSL_GUARDED_BY(mutex_);
  std::vector<Lane*> arrived_ ABSL_GUARDED_BY(mutex_);  // the device is done with these
  Stats stats_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::thread thread_;  // the only one that uses lanes and their streams
};

}  // namespace turbokv
