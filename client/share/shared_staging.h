// Raw data from a client to the server without a copy through a socket: slots in memory that both
// map.
//
//   client                                   server
//   slot = AcquireSlot(); fill it
//   slot.Announce(); "slot 3, 1 MiB" by gRPC -->  Slot(3, 0, 1 MiB), encodes
//                                            <--  Release(3) in the shared header; wakes the client
//
// Invariants
//   1. The server makes the memory and seals it: its size is fixed, and no access faults for that.
//   2. The server never reads the header, and nothing of the geometry but its own copy. Bytes of a
//      slot can change while it reads them: it must give the same safety for any bytes.
//   3. Neither side waits for the other without a deadline and a look at whether the other lives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "client/share/fd_socket.h"
#include "client/share/unique_fd.h"

namespace turbokv {

inline constexpr uint32_t kMaxStagingSlots = 256;
inline constexpr uint64_t kMaxStagingSlotBytes = uint64_t{1} << 30;
inline constexpr uint64_t kStagingAlignmentBytes = 4096;

struct StagingGeometry {
  uint64_t slot_bytes = 0;  // a multiple of kStagingAlignmentBytes
  uint32_t slots = 0;
  // Header page and slots. Precondition: CheckStagingGeometry is OK.
  uint64_t region_bytes() const { return kStagingAlignmentBytes + slot_bytes * slots; }
  bool operator==(const StagingGeometry&) const = default;
};

// INVALID_ARGUMENT names the number and its limits.
absl::Status CheckStagingGeometry(const StagingGeometry& geometry);

struct StagingHeader;  // the first page

// A mapping of the memory, gone with this object.
class StagingMemory {
 public:
  // Precondition: `fd` is memory of geometry.region_bytes(). RESOURCE_EXHAUSTED: no addresses left.
  static absl::StatusOr<StagingMemory> Map(int fd, const StagingGeometry& geometry);
  StagingMemory(StagingMemory&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)), geometry_(other.geometry_) {}
  StagingMemory& operator=(StagingMemory&& other) = delete;
  ~StagingMemory();

  const StagingGeometry& geometry() const { return geometry_; }
  StagingHeader* header() const { return reinterpret_cast<StagingHeader*>(base_); }
  // Precondition: slot < geometry().slots.
  uint8_t* slot(uint32_t slot) const {
    return base_ + kStagingAlignmentBytes + slot * geometry_.slot_bytes;
  }

 private:
  StagingMemory(uint8_t* base, const StagingGeometry& geometry)
      : base_(base), geometry_(geometry) {}

  uint8_t* base_;
  StagingGeometry geometry_;
};

// The server's end. Threads: any.
class StagingRegion {
 public:
  // Memory is taken as the client first writes it. INVALID_ARGUMENT as CheckStagingGeometry;
  // RESOURCE_EXHAUSTED: the system refuses.
  static absl::StatusOr<std::unique_ptr<StagingRegion>> Create(const StagingGeometry& geometry);

  const StagingGeometry& geometry() const { return memory_.geometry(); }
  // For the client; stays this object's.
  int fd() const { return fd_.get(); }

  // What the client announced: untrusted numbers. The bytes may change at any time, and are
  // readable while this object lives. INVALID_ARGUMENT names the number and its limit;
  // RESOURCE_EXHAUSTED: the client left holes in it that there is no memory to fill.
  absl::StatusOr<absl::Span<const uint8_t>> Slot(uint32_t slot, uint64_t offset_bytes,
                                                 uint64_t bytes) const;

  // The client may fill the slot again: once for each time that it was announced.
  // INVALID_ARGUMENT: no such slot.
  absl::Status Release(uint32_t slot);

 private:
  StagingRegion(UniqueFd fd, StagingMemory memory);

  UniqueFd fd_;
  StagingMemory memory_;
  Mutex mutex_;
  // The truth; what the header says is a copy for the client.
  std::vector<uint32_t> consumed_ ABSL_GUARDED_BY(mutex_);
  uint32_t releases_ ABSL_GUARDED_BY(mutex_) = 0;
};

class StagingClient;

// A slot that the holder may write. Used by one thread. Outlives no StagingClient.
class StagingSlot {
 public:
  StagingSlot(StagingSlot&& other) noexcept
      : client_(std::exchange(other.client_, nullptr)),
        index_(other.index_),
        bytes_(other.bytes_) {}
  StagingSlot& operator=(StagingSlot&& other) = delete;
  ~StagingSlot();  // an unannounced slot is free again

  uint32_t index() const { return index_; }
  absl::Span<uint8_t> bytes() const { return bytes_; }  // contents undefined

  // The slot is the server's from here on, until it releases it: call before telling the server,
  // and tell it exactly once.
  void Announce() &&;

 private:
  friend class StagingClient;
  StagingSlot(StagingClient* client, uint32_t index, absl::Span<uint8_t> bytes)
      : client_(client), index_(index), bytes_(bytes) {}

  StagingClient* client_;
  uint32_t index_;
  absl::Span<uint8_t> bytes_;
};

// The client's end. Threads: any.
class StagingClient {
 public:
  // `socket` tells whether the server lives. INVALID_ARGUMENT: the descriptor or geometry is not
  // what a staging region is.
  static absl::StatusOr<std::unique_ptr<StagingClient>> Create(
      const UniqueFd& fd, const StagingGeometry& geometry, std::shared_ptr<const FdSocket> socket);

  const StagingGeometry& geometry() const { return memory_.geometry(); }

  // DEADLINE_EXCEEDED: the server held every slot until `deadline`. UNAVAILABLE: the server has
  // gone, noticed within a twentieth of a second.
  absl::StatusOr<StagingSlot> AcquireSlot(absl::Time deadline);

 private:
  friend class StagingSlot;
  struct SlotState {
    bool held = false;       // by a StagingSlot
    uint32_t announced = 0;  // how often; the server has it while its count is another
  };

  StagingClient(StagingMemory memory, std::shared_ptr<const FdSocket> socket);
  void GiveBack(uint32_t slot, bool announced);

  StagingMemory memory_;
  const std::shared_ptr<const FdSocket> socket_;
  Mutex mutex_;
  std::vector<SlotState> slots_ ABSL_GUARDED_BY(mutex_);
  uint32_t next_ ABSL_GUARDED_BY(mutex_) = 0;  // where the search begins
};

}  // namespace turbokv
