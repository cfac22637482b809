// Whole pages between host memory and a device's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "server/device/device.h"
#include "server/device/encode_completion.h"
#include "server/device/staging_ring.h"

namespace turbokv {

struct DeviceRead {
  uint8_t* host = nullptr;
  const uint8_t* device = nullptr;
  size_t bytes = 0;
};

struct DeviceWrite {
  uint8_t* device = nullptr;
  const uint8_t* host = nullptr;
  size_t bytes = 0;
};

// Threads: any; a few calls run side by side, further ones wait.
class DevicePageIo {
 public:
  // `device` outlives this.
  static absl::StatusOr<std::unique_ptr<DevicePageIo>> Create(Device* device);

  // Returns when everything is copied, or nothing goes on.
  absl::Status Read(absl::Span<const DeviceRead> reads);
  absl::Status Write(absl::Span<const DeviceWrite> writes);

  // Copies the first `bytes` of the slot to `device` and frees the slot; returns at once.
  // `completion` counts it as a page.
  void Upload(StagingRing::Slot slot, size_t bytes, uint8_t* device, EncodeCompletion* completion);

 private:
  DevicePageIo() = default;
  // Runs `enqueue` on a stream that nobody else uses meanwhile.
  absl::Status WithStream(const std::function<absl::Status(DeviceStream*)>& enqueue);

  Mutex mutex_;
  CondVar returned_;
  std::vector<DeviceStream*> idle_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<DeviceStream>> streams_;
};

}  // namespace turbokv
