// Which GPU the calling thread uses.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace turbokv {

// "GPU-...": DeviceMemory::Open's device_uuid. UNAVAILABLE: no GPU or no driver.
absl::StatusOr<std::string> CurrentGpuUuid();

// Makes `index` the thread's GPU, and the former one again at the end.
class GpuScope {
 public:
  explicit GpuScope(int index);
  ~GpuScope();
  GpuScope(const GpuScope&) = delete;
  GpuScope& operator=(const GpuScope&) = delete;

  const absl::Status& status() const { return status_; }

 private:
  int former_ = -1;
  absl::Status status_;
};

}  // namespace turbokv
