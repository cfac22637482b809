#include "server/device/fake_device.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/device/fake_stream.h"
#include "server/device/work_checks.h"

namespace turbokv {
namespace {

constexpr size_t kSlabGranularityBytes = 4096;

size_t RoundUp(size_t bytes, size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

class FakeArena final : public Arena {
 public:
  FakeArena(std::unique_ptr<FakeMemory::Region> region, size_t slab_bytes, bool shareable)
      : region_(std::move(region)),
        slab_bytes_(slab_bytes),
        shareable_(shareable),
        shared_(slab_count(), false) {}

  uint8_t* base() const override { return region_->device(); }
  size_t slab_bytes() const override { return slab_bytes_; }
  uint32_t slab_count() const override {
    return static_cast<uint32_t>(region_->size_bytes() / slab_bytes_);
  }

  absl::StatusOr<SharedSlab> Share(uint32_t slab) override {
    Check(slab < slab_count(), "a slab is one of the arena's");
    if (!shareable_) {
      return absl::UnimplementedError("this arena was made without memory that can be shared");
    }
    SharedSlab shared;
    TURBOKV_ASSIGN_OR_RETURN(shared.fd, region_->OpenReadOnly(slab));
    shared.kind = ShareKind::kFakeFd;
    shared_[slab] = true;
    return shared;
  }

  absl::Status Renew(uint32_t slab) override {
    Check(slab < slab_count(), "a slab is one of the arena's");
    if (!shared_[slab]) return absl::OkStatus();
    TURBOKV_RETURN_IF_ERROR(region_->Renew(slab));
    shared_[slab] = false;
    return absl::OkStatus();
  }

 private:
  const std::unique_ptr<FakeMemory::Region> region_;
  const size_t slab_bytes_;
  const bool shareable_;
  std::vector<bool> shared_;
};

class FakeDeviceMemory final : public DeviceBuffer {
 public:
  FakeDeviceMemory(std::unique_ptr<FakeMemory::Region> region, size_t size_bytes)
      : region_(std::move(region)), size_bytes_(size_bytes) {}
  uint8_t* data() const override { return region_->device(); }
  size_t size_bytes() const override { return size_bytes_; }

 private:
  const std::unique_ptr<FakeMemory::Region> region_;
  const size_t size_bytes_;
};

class FakePinnedMemory final : public DeviceBuffer {
 public:
  explicit FakePinnedMemory(size_t bytes)
      : bytes_(new (std::align_val_t{kSlabGranularityBytes}) uint8_t[bytes]()),
        size_bytes_(bytes) {}
  uint8_t* data() const override { return bytes_.get(); }
  size_t size_bytes() const override { return size_bytes_; }

 private:
  struct Delete {
    void operator()(uint8_t* bytes) const {
      operator delete[](bytes, std::align_val_t{kSlabGranularityBytes});
    }
  };
  const std::unique_ptr<uint8_t[], Delete> bytes_;
  const size_t size_bytes_;
};

absl::Status CheckSize(size_t bytes) {
  if (bytes > 0) return absl::OkStatus();
  return absl::InvalidArgumentError("a buffer of 0 bytes: must be positive");
}

DeviceInfo InfoOf(const FakeDeviceOptions& options) {
  return {options.index, "fake", options.uuid, options.total_bytes, options.total_bytes};
}

}  // namespace

FakeDevice::FakeDevice(const FakeDeviceOptions& options)
    : info_(InfoOf(options)), memory_(options.total_bytes) {}

absl::Status FakeDevice::CheckShape(const PageShape& shape) const {
  return CheckDeviceShape(shape);
}

size_t FakeDevice::slab_granularity_bytes() const { return kSlabGranularityBytes; }

absl::StatusOr<std::unique_ptr<Arena>> FakeDevice::MakeArena(size_t budget_bytes, size_t slab_bytes,
                                                             bool shareable) {
  TURBOKV_RETURN_IF_ERROR(health());
  TURBOKV_RETURN_IF_ERROR(CheckDeviceArenaSizes(budget_bytes, slab_bytes, kSlabGranularityBytes));
  TURBOKV_ASSIGN_OR_RETURN(auto region, memory_.Allocate(slab_bytes, budget_bytes / slab_bytes));
  return std::make_unique<FakeArena>(std::move(region), slab_bytes, shareable);
}

absl::StatusOr<std::unique_ptr<DeviceBuffer>> FakeDevice::AllocatePinned(size_t bytes) {
  TURBOKV_RETURN_IF_ERROR(health());
  TURBOKV_RETURN_IF_ERROR(CheckSize(bytes));
  return std::make_unique<FakePinnedMemory>(bytes);
}

absl::StatusOr<std::unique_ptr<DeviceBuffer>> FakeDevice::AllocateDevice(size_t bytes) {
  TURBOKV_RETURN_IF_ERROR(health());
  TURBOKV_RETURN_IF_ERROR(CheckSize(bytes));
  TURBOKV_ASSIGN_OR_RETURN(auto region, memory_.Allocate(RoundUp(bytes, kSlabGranularityBytes), 1));
  return std::make_unique<FakeDeviceMemory>(std::move(region), bytes);
}

absl::StatusOr<std::unique_ptr<DeviceStream>> FakeDevice::MakeStream() {
  TURBOKV_RETURN_IF_ERROR(health());
  return std::make_unique<FakeStream>(&memory_, &faults_);
}

}  // namespace turbokv
