// A stream of a GPU. What kernels need beside pages (page numbers, workspaces, verdicts) goes
// through pinned chunks, which come back when the work that reads them is done, and through device
// scratch, which the stream's order protects.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "server/device/cuda_context.h"
#include "server/device/cuda_notifier.h"
#include "server/device/device.h"

namespace turbokv {

class CudaStream final : public DeviceStream {
 public:
  // `context` outlives the stream.
  static absl::StatusOr<std::unique_ptr<CudaStream>> Create(CudaContext* context);
  ~CudaStream() override;

  absl::Status CopyToDevice(uint8_t* device, const uint8_t* host, size_t bytes) override;
  absl::Status CopyToHost(uint8_t* host, const uint8_t* device, size_t bytes) override;
  absl::Status CopyPages(absl::Span<const DeviceCopy> copies) override;
  absl::Status Encode(const DeviceEncode& work, DeviceVerdict* verdict) override;
  absl::Status VerifyChecksums(const PageLayout& layout,
                               absl::Span<const uint8_t* const> device_pages,
                               DeviceVerdict* verdict) override;
  void Notify(std::function<void(absl::Status)> done) override;

 private:
  using Chunk = std::unique_ptr<DeviceBuffer>;  // pinned

  // Pages [begin, ...) of a work item were launched together; their word is 1 + the index in the
  // run of a bad page, or 0.
  struct PendingVerdict {
    const uint32_t* pinned_words = nullptr;
    std::vector<int64_t> run_begins;
    DeviceVerdict* verdict = nullptr;
  };
  // What has to wait for the work since the last notification.
  struct Frame {
    std::vector<Chunk> chunks;
    size_t used_bytes = 0;  // of the last chunk
    std::vector<PendingVerdict> verdicts;
  };
  // Where the kernels of one call find their numbers: words, one a run, that begin as zeros, then
  // page numbers, then a workspace.
  struct Numbers {
    uint32_t* pinned_words = nullptr;
    uint32_t* device_words = nullptr;
    const int32_t* device_ids = nullptr;
    uint8_t* device_workspace = nullptr;
  };

  explicit CudaStream(CudaContext* context) : context_(context), notifier_(context) {}

  // Pinned memory until the next notification has come.
  absl::StatusOr<uint8_t*> Stage(size_t bytes);
  absl::StatusOr<Chunk> TakeChunk(size_t bytes);
  // Device memory for one call.
  absl::StatusOr<uint8_t*> Scratch(size_t bytes);
  absl::StatusOr<Numbers> Upload(absl::Span<const int32_t> ids, size_t words,
                                 size_t workspace_bytes);
  absl::Status ReadBack(const Numbers& numbers, std::vector<int64_t> run_begins,
                        DeviceVerdict* verdict);
  // On the notifier's thread: verdicts are read, chunks come back.
  void Close(Frame frame, const absl::Status& status);

  CudaContext* const context_;
  cudaStream_t stream_ = nullptr;
  Frame frame_;
  std::unique_ptr<DeviceBuffer> scratch_;
  Mutex mutex_;
  CondVar returned_;
  std::vector<Chunk> idle_chunks_ ABSL_GUARDED_BY(mutex_);
  size_t chunk_count_ ABSL_GUARDED_BY(mutex_) = 0;
  CudaNotifier notifier_;  // destroyed first: its last notifications use the rest
};

}  // namespace turbokv
