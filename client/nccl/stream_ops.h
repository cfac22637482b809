// The one thing of CUDA that a channel needs: an ordered stream, and a way to ask how far it is.
// The CUDA build has it in cuda_stream_ops.h; tests bring one for the fake of NCCL.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace turbokv {

// The most marks of one stream whose state may still be asked for.
inline constexpr int kMaxStreamMarks = 8;

// Used by one thread, the one that made it. Destruction does not wait for the stream's work.
class ChannelStream {
 public:
  virtual ~ChannelStream() = default;

  // What NCCL takes: a cudaStream_t.
  virtual void* handle() const = 0;
  // Marks the point behind everything enqueued so far. A mark is good until kMaxStreamMarks more
  // have been taken.
  virtual absl::StatusOr<uint64_t> Mark() = 0;
  // Whether everything before `mark` is done. An error of the device is returned as it is.
  virtual absl::StatusOr<bool> Reached(uint64_t mark) = 0;
};

// Threads: any.
class StreamOps {
 public:
  virtual ~StreamOps() = default;

  // A stream of device `device_index` (as CUDA counts), which becomes the calling thread's device.
  virtual absl::StatusOr<std::unique_ptr<ChannelStream>> MakeStream(int device_index) = 0;
};

}  // namespace turbokv
