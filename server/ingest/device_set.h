// The GPUs whose memory holds pages: each is a pool of the cache, with the way to and from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/cache_spec.h"
#include "server/config/config.h"
#include "server/device/device.h"
#include "server/device/device_encoder.h"
#include "server/device/staging_ring.h"
#include "server/index/block_cache.h"
#include "server/ingest/device_page_io.h"

namespace turbokv {

struct DeviceSetOptions {
  GpuMemory memory;
  bool shareable = false;
  // Pinned memory of each device, through which K/V and pages come in. A spec whose raw pages are
  // larger than a slot is kept in host memory.
  size_t staging_slot_bytes = size_t{4} << 20;
  uint32_t staging_slots = 32;
};

// One device, and what moves pages to it. Members are destroyed in reverse.
struct PoolDevice {
  std::unique_ptr<Device> device;
  std::unique_ptr<Arena> arena;  // until the cache takes it
  std::unique_ptr<StagingRing> ring;
  std::unique_ptr<DeviceEncoder> encoder;
  std::unique_ptr<DevicePageIo> io;

  // Waits while others have all slots. DEADLINE_EXCEEDED: for so long that the device must hang.
  absl::StatusOr<StagingRing::Slot> AcquireSlot() const;
};

// Threads: any, but for TakePools. Outlives the cache that has its pools.
class DeviceSet final : public ExtentCopier {
 public:
  // Reserves all memory. RESOURCE_EXHAUSTED names the device, what is wanted and what is free.
  static absl::StatusOr<std::unique_ptr<DeviceSet>> Create(
      std::vector<std::unique_ptr<Device>> devices, const DeviceSetOptions& options);

  // For BlockCache::Create. Once.
  DevicePools TakePools();

  // Where blocks of a spec go: the same healthy device for all of them, by rendezvous hashing of
  // the spec's fingerprint; host memory when no device takes its pages.
  PoolId PlacementOf(const ResolvedSpec& spec) const;
  // Whether that pool's device takes pages of the spec; what it lacks. Precondition: a device's.
  absl::Status CheckSpec(PoolId pool, const ResolvedSpec& spec) const {
    return CheckSpec(*devices_[pool - 1], spec);
  }

  std::optional<PoolId> PoolOf(absl::string_view device_uuid) const;
  // Null: host memory. Precondition: pool <= size().
  PoolDevice* device(PoolId pool) const {
    return pool == kHostPool ? nullptr : devices_[pool - 1].get();
  }
  size_t size() const { return devices_.size(); }

  absl::Status Copy(absl::Span<const ExtentCopy> copies) override;

  // Pools whose device has failed since the last call. One thread.
  std::vector<PoolId> TakeFailed();

 private:
  explicit DeviceSet(const DeviceSetOptions& options) : options_(options) {}
  absl::Status Add(std::unique_ptr<Device> device);
  absl::Status CheckSpec(const PoolDevice& device, const ResolvedSpec& spec) const;

  const DeviceSetOptions options_;
  std::vector<std::unique_ptr<PoolDevice>> devices_;
  std::vector<bool> failed_;  // TakeFailed's
};

}  // namespace turbokv
