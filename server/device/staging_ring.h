// Memory through which everything goes to the GPU: a fixed number of equal slots. Who finds none
// waits: that is the back-pressure on what sends faster than the GPU takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/device/device.h"

namespace turbokv {

// Page-locked host memory, or memory of the device.
enum class RingMemory : uint8_t { kPinned, kDevice };

// Threads: any. Outlives its slots.
class StagingRing {
 public:
  // Owns a slot until it is destroyed or reset. Holds what was left there.
  class Slot {
   public:
    Slot() = default;
    Slot(Slot&& other) noexcept;
    Slot& operator=(Slot&& other) noexcept;
    ~Slot() { reset(); }

    explicit operator bool() const { return ring_ != nullptr; }
    // REQUIRES: not empty.
    uint8_t* data() const;
    size_t size_bytes() const;
    uint32_t index() const { return index_; }
    void reset();
    // Instead of reset, when the device may still touch the memory: nobody gets the slot again.
    void Abandon();

   private:
    friend class StagingRing;
    Slot(StagingRing* ring, uint32_t index) : ring_(ring), index_(index) {}

    StagingRing* ring_ = nullptr;
    uint32_t index_ = 0;
  };

  struct Stats {
    uint32_t slots = 0;
    uint32_t in_use = 0;
    uint64_t waits = 0;  // of Acquire, that found no slot free
    absl::Duration wait_time;
  };

  // All memory is allocated here. INVALID_ARGUMENT names the size that is wrong. `device` outlives
  // this. `slot_bytes` is rounded up to a multiple of 4096.
  static absl::StatusOr<std::unique_ptr<StagingRing>> Create(
      Device* device, size_t slot_bytes, uint32_t slots, RingMemory memory = RingMemory::kPinned);
  ~StagingRing();

  // Waits for a slot. DEADLINE_EXCEEDED; CANCELLED once `cancelled` (may be empty) returns true:
  // it is asked before waiting and then every 20 ms, without locks held.
  absl::StatusOr<Slot> Acquire(absl::Time deadline, const std::function<bool()>& cancelled);
  // Empty when there is none.
  Slot TryAcquire();

  size_t slot_bytes() const { return slot_bytes_; }
  Stats stats() const;

 private:
  StagingRing(std::unique_ptr<DeviceBuffer> memory, size_t slot_bytes, uint32_t slots);
  void Release(uint32_t index);
  void CountAbandoned();
  Slot TakeLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::unique_ptr<DeviceBuffer> memory_;
  const size_t slot_bytes_;
  const uint32_t slots_;
  mutable Mutex mutex_;
  CondVar released_;
  std::vector<uint32_t> free_ ABSL_GUARDED_BY(mutex_);
  uint32_t abandoned_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t waits_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Duration wait_time_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace turbokv
