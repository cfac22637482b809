// Memory of a fake device. A device address is one of a mapping without access, so that host code
// that dereferences it faults; the device's own threads reach the bytes by Translate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"

namespace turbokv {

// Threads: any. Outlives its regions.
class FakeMemory {
 public:
  explicit FakeMemory(size_t total_bytes) : total_bytes_(total_bytes) {}
  ~FakeMemory();

  // Contiguous device addresses, in parts of `part_bytes` of which each is a file of its own.
  class Region;

  // RESOURCE_EXHAUSTED names requested, free and total bytes.
  absl::StatusOr<std::unique_ptr<Region>> Allocate(size_t part_bytes, size_t parts);

  // Where the device finds [device, device + bytes). The process ends unless all of it is in one
  // region.
  uint8_t* Translate(const uint8_t* device, size_t bytes) const;

  size_t free_bytes() const;

 private:
  absl::Status Reserve(size_t bytes);
  void Return(size_t bytes);

  const size_t total_bytes_;
  mutable Mutex mutex_;
  size_t used_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<const uint8_t*, const Region*> regions_ ABSL_GUARDED_BY(mutex_);  // by first address
};

class FakeMemory::Region {
 public:
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  uint8_t* device() const { return device_; }
  size_t size_bytes() const { return part_bytes_ * files_.size(); }

  // A descriptor, of the caller's, to map a part by, read-only.
  absl::StatusOr<int> OpenReadOnly(size_t part) const;
  // Puts zeroed memory in a part's place. An error leaves it as it was.
  absl::Status Renew(size_t part);

 private:
  friend class FakeMemory;
  Region(FakeMemory* memory, size_t part_bytes, size_t parts)
      : memory_(memory), part_bytes_(part_bytes), files_(parts, -1) {}
  absl::Status Map();

  FakeMemory* const memory_;
  const size_t part_bytes_;
  std::vector<int> files_;
  uint8_t* device_ = nullptr;  // without access
  uint8_t* host_ = nullptr;    // the same memory
};

}  // namespace turbokv
