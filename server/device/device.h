// A GPU as the service uses it: memory for pages, pinned staging, and streams of ordered work. The
// real one is cuda_device.h; fake_device.h behaves alike on a machine without a GPU.
//
// Device addresses are never dereferenced by host code: the fake faults when they are.
//
// Errors: an operation that the device refuses returns its status. An error that the device cannot
// recover from (sticky, in CUDA's words) is kept: health() tells it from then on, every operation
// returns it, and every Notify callback gets it; the process and other devices go on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/format/page_header.h"
#include "kernels/format/page_layout.h"
#include "kernels/kv_view.h"
#include "server/pool/arena.h"

namespace turbokv {

struct DeviceInfo {
  int index = 0;     // as CUDA counts
  std::string name;  // "NVIDIA H200", "fake"
  std::string uuid;  // "GPU-..."; tells whether two processes mean the same device
  size_t total_bytes = 0;
  size_t free_bytes = 0;  // when it was opened
};

// Page-locked host memory, or plain memory of this device that belongs to no arena.
class DeviceBuffer {
 public:
  virtual ~DeviceBuffer() = default;
  virtual uint8_t* data() const = 0;
  virtual size_t size_bytes() const = 0;
};

// Pages of one layer, encoded from raw K/V that lies in device memory. Page i takes tokens
// 128 i .. 128 i + 127 of the source, and position identity.first_token + 128 i.
struct DeviceEncode {
  PageLayout layout;
  ValueType type = ValueType::kBf16;
  // Value (t, h, c) at index t * token_stride + h * head_stride + c, in values.
  const uint8_t* device_k = nullptr;
  const uint8_t* device_v = nullptr;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
  PageIdentity identity;
  std::vector<uint8_t*> device_pages;  // where each page goes; null: it is not wanted
};

// Bytes to copy inside the device; all three multiples of kCopyAlignmentBytes.
struct DeviceCopy {
  const uint8_t* from = nullptr;
  uint8_t* to = nullptr;
  size_t bytes = 0;
};
inline constexpr size_t kCopyAlignmentBytes = 16;

// What a stream found out about pages; set before the next Notify after the work calls back, and
// left alone when that one has an error.
struct DeviceVerdict {
  // The largest index of a page with a NaN or infinity, or of a damaged one; -1: none.
  int64_t bad_page = -1;
};

// Ordered work. Used by one thread at a time; work of different streams runs side by side.
class DeviceStream {
 public:
  virtual ~DeviceStream() = default;  // waits for what was enqueued

  // `host` is pinned memory of this device (or, slower, any memory), valid until the work is done.
  virtual absl::Status CopyToDevice(uint8_t* device, const uint8_t* host, size_t bytes) = 0;
  virtual absl::Status CopyToHost(uint8_t* host, const uint8_t* device, size_t bytes) = 0;
  // Scattered pages to a contiguous buffer, or back, or from place to place: all at once, in no
  // order, so that none may write what another reads or writes.
  virtual absl::Status CopyPages(absl::Span<const DeviceCopy> copies) = 0;

  // `verdict` (may be null) is set when a page holds a value that is not finite; such a page's
  // bytes are undefined. INVALID_ARGUMENT, UNIMPLEMENTED as EncodePages of kernels/cuda.
  virtual absl::Status Encode(const DeviceEncode& work, DeviceVerdict* verdict) = 0;

  // Checks that the pages, in device memory, are of `layout`, and their CRC32C.
  virtual absl::Status VerifyChecksums(const PageLayout& layout,
                                       absl::Span<const uint8_t* const> device_pages,
                                       DeviceVerdict* verdict) = 0;

  // Calls `done`, on a thread of the device, when everything enqueued before has finished, with OK
  // or what went wrong. `done` must not block.
  virtual void Notify(std::function<void(absl::Status)> done) = 0;

  // Waits for everything enqueued before.
  absl::Status Wait();
};

// Threads: any, except where said.
class Device {
 public:
  virtual ~Device() = default;  // after its arenas, buffers and streams

  virtual const DeviceInfo& info() const = 0;
  // OK, or the sticky error.
  virtual absl::Status health() const = 0;

  // Whether Encode takes pages of this shape; UNIMPLEMENTED says what is missing.
  virtual absl::Status CheckShape(const PageShape& shape) const = 0;

  // Memory for pages, all of it at once. RESOURCE_EXHAUSTED names what is free.
  virtual absl::StatusOr<std::unique_ptr<Arena>> MakeArena(size_t budget_bytes, size_t slab_bytes,
                                                           bool shareable) = 0;
  // Slab sizes must be multiples of this.
  virtual size_t slab_granularity_bytes() const = 0;

  virtual absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocatePinned(size_t bytes) = 0;
  virtual absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocateDevice(size_t bytes) = 0;

  virtual absl::StatusOr<std::unique_ptr<DeviceStream>> MakeStream() = 0;
};

}  // namespace turbokv
