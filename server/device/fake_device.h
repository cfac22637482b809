// A device on host memory, for machines without a GPU and for faults that no GPU has on demand.
// As asynchronous as the real one: every stream is a thread; device addresses fault on the host.
#pragma once

#include <memory>
#include <string>

#include "server/device/device.h"
#include "server/device/fake_faults.h"
#include "server/device/fake_memory.h"

namespace turbokv {

struct FakeDeviceOptions {
  int index = 0;
  std::string uuid = "GPU-00000000-0000-0000-0000-000000000000";
  size_t total_bytes = size_t{1} << 30;  // of device memory; pinned memory does not count
};

class FakeDevice final : public Device {
 public:
  explicit FakeDevice(const FakeDeviceOptions& options = {});

  FakeFaults& faults() { return faults_; }
  size_t free_bytes() const { return memory_.free_bytes(); }

  // Reads device memory as a test must: by the mapping of the device. No stream may be writing it.
  const uint8_t* Peek(const uint8_t* device, size_t bytes) const {
    return memory_.Translate(device, bytes);
  }
  uint8_t* Poke(uint8_t* device, size_t bytes) { return memory_.Translate(device, bytes); }

  const DeviceInfo& info() const override { return info_; }
  absl::Status health() const override { return faults_.health(); }
  absl::Status CheckShape(const PageShape& shape) const override;
  absl::StatusOr<std::unique_ptr<Arena>> MakeArena(size_t budget_bytes, size_t slab_bytes,
                                                   bool shareable) override;
  size_t slab_granularity_bytes() const override;
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocatePinned(size_t bytes) override;
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocateDevice(size_t bytes) override;
  absl::StatusOr<std::unique_ptr<DeviceStream>> MakeStream() override;

 private:
  const DeviceInfo info_;
  FakeFaults faults_;
  FakeMemory memory_;
};

}  // namespace turbokv
