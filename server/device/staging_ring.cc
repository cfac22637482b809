#include "server/device/staging_ring.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

constexpr size_t kSlotAlignmentBytes = 4096;
constexpr absl::Duration kCancellationPeriod = absl::Milliseconds(20);

}  // namespace

StagingRing::Slot::Slot(Slot&& other) noexcept : ring_(other.ring_), index_(other.index_) {
  other.ring_ = nullptr;
}

StagingRing::Slot& StagingRing::Slot::operator=(Slot&& other) noexcept {
  if (this == &other) return *this;
  reset();
  ring_ = std::exchange(other.ring_, nullptr);
  index_ = other.index_;
  return *this;
}

uint8_t* StagingRing::Slot::data() const {
  return ring_->memory_->data() + index_ * ring_->slot_bytes_;
}

size_t StagingRing::Slot::size_bytes() const { return ring_->slot_bytes_; }

void StagingRing::Slot::reset() {
  if (StagingRing* const ring = std::exchange(ring_, nullptr)) ring->Release(index_);
}

void StagingRing::Slot::Abandon() {
  if (StagingRing* const ring = std::exchange(ring_, nullptr)) ring->CountAbandoned();
}

absl::StatusOr<std::unique_ptr<StagingRing>> StagingRing::Create(Device* device, size_t slot_bytes,
                                                                 uint32_t slots,
                                                                 RingMemory memory) {
  constexpr size_t kMaxSlotBytes = size_t{1} << 40;
  if (slot_bytes == 0 || slot_bytes > kMaxSlotBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("staging slots of ", slot_bytes, " bytes: must be in 1..", kMaxSlotBytes));
  }
  constexpr uint32_t kMaxSlots = 1 << 16;
  if (slots == 0 || slots > kMaxSlots) {
    return absl::InvalidArgumentError(
        absl::StrCat(slots, " staging slots: must be in 1..", kMaxSlots));
  }
  const size_t rounded_bytes =
      (slot_bytes + kSlotAlignmentBytes - 1) / kSlotAlignmentBytes * kSlotAlignmentBytes;
  TURBOKV_ASSIGN_OR_RETURN(auto buffer, memory == RingMemory::kPinned
                                            ? device->AllocatePinned(rounded_bytes * slots)
                                            : device->AllocateDevice(rounded_bytes * slots));
  return absl::WrapUnique(new StagingRing(std::move(buffer), rounded_bytes, slots));
}

StagingRing::StagingRing(std::unique_ptr<DeviceBuffer> memory, size_t slot_bytes, uint32_t slots)
    : memory_(std::move(memory)), slot_bytes_(slot_bytes), slots_(slots) {
  for (uint32_t i = slots; i > 0; --i) free_.push_back(i - 1);
}

StagingRing::~StagingRing() {
  MutexLock lock(&mutex_);
  Check(free_.size() + abandoned_ == slots_, "a staging ring outlives its slots");
}

StagingRing::Slot StagingRing::TakeLocked() {
  // The one used last: its lines may still be in a cache.
  const uint32_t index = free_.back();
  free_.pop_back();
  return {this, index};
}

StagingRing::Slot StagingRing::TryAcquire() {
  MutexLock lock(&mutex_);
  return free_.empty() ? Slot() : TakeLocked();
}

absl::StatusOr<StagingRing::Slot> StagingRing::Acquire(absl::Time deadline,
                                                       const std::function<bool()>& cancelled) {
  if (Slot slot = TryAcquire()) return slot;
  const absl::Time start = absl::Now();
  {
    MutexLock lock(&mutex_);
    ++waits_;
  }
  const absl::Cleanup add_wait = [&] {
    MutexLock lock(&mutex_);
    wait_time_ += absl::Now() - start;
  };
  while (true) {
    if (cancelled && cancelled()) {
      return absl::CancelledError("cancelled while waiting for a staging slot");
    }
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(absl::StrCat("no staging slot of ", slots_,
                                                      " became free within ",
                                                      absl::FormatDuration(absl::Now() - start)));
    }
    MutexLock lock(&mutex_);
    if (free_.empty()) {
      released_.wait_for(mutex_, absl::ToChronoNanoseconds(std::min(left, kCancellationPeriod)));
    }
    if (!free_.empty()) return TakeLocked();
  }
}

void StagingRing::Release(uint32_t index) {
  MutexLock lock(&mutex_);
  free_.push_back(index);
  released_.notify_one();
}

void StagingRing::CountAbandoned() {
  MutexLock lock(&mutex_);
  ++abandoned_;
}

StagingRing::Stats StagingRing::stats() const {
  MutexLock lock(&mutex_);
  Stats stats;
  stats.slots = slots_;
  stats.in_use = slots_ - static_cast<uint32_t>(free_.size());
  stats.waits = waits_;
  stats.wait_time = wait_time_;
  return stats;
}

}  // namespace turbokv
