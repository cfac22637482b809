// Device memory through which transfers of channels go, each piece with a stream of its own, so
// that the work on one transfer runs beside the transfer after it. A fixed number: who finds none
// waits, and the peer with it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/device/device.h"
#include "server/device/staging_ring.h"
#include "server/ingest/device_page_io.h"

namespace turbokv {

// The most pages of one transfer.
inline constexpr size_t kMaxTransferPages = 4096;

struct TransferLaneOptions {
  size_t max_transfer_bytes = size_t{256} << 20;
  uint32_t lanes = 4;
};

// Threads: any. Outlives its lanes.
class TransferLanes {
 public:
  class Lane;

  // Allocates all memory. RESOURCE_EXHAUSTED names what is wanted and what is free. `device` and
  // `io` outlive this.
  static absl::StatusOr<std::unique_ptr<TransferLanes>> Create(Device* device, DevicePageIo* io,
                                                               const TransferLaneOptions& options);
  ~TransferLanes();  // waits for the work on its streams

  // Waits for a lane. DEADLINE_EXCEEDED; CANCELLED once `cancelled` returns true.
  absl::StatusOr<std::shared_ptr<Lane>> Acquire(absl::Time deadline,
                                                const std::function<bool()>& cancelled);

  size_t max_transfer_bytes() const { return options_.max_transfer_bytes; }
  uint32_t lanes_in_use() const { return ring_->stats().in_use; }
  DevicePageIo* io() const { return io_; }

 private:
  struct Parts {
    std::unique_ptr<DeviceBuffer> headers;  // pinned, kMaxTransferPages of them
    std::unique_ptr<DeviceStream> stream;
  };

  TransferLanes(DevicePageIo* io, const TransferLaneOptions& options)
      : options_(options), io_(io) {}

  const TransferLaneOptions options_;
  DevicePageIo* const io_;
  std::unique_ptr<StagingRing> ring_;
  std::vector<Parts> parts_;  // by slot
};

// Used by one thread at a time. Free for others once the last owner lets go.
class TransferLanes::Lane {
 public:
  Lane(StagingRing::Slot slot, Parts* parts, size_t max_transfer_bytes)
      : slot_(std::move(slot)), parts_(parts), max_transfer_bytes_(max_transfer_bytes) {}

  uint8_t* device() const { return slot_.data(); }  // max_transfer_bytes
  // Room for headers of kMaxTransferPages pages, on the device and in host memory.
  uint8_t* device_headers() const { return slot_.data() + max_transfer_bytes_; }
  uint8_t* host_headers() const { return parts_->headers->data(); }
  DeviceStream* stream() const { return parts_->stream.get(); }
  // The device may still touch the memory: nobody gets this lane again.
  void Abandon() { slot_.Abandon(); }

 private:
  StagingRing::Slot slot_;
  Parts* const parts_;
  const size_t max_transfer_bytes_;
};

}  // namespace turbokv
