#include "client/share/shared_staging.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/share/mapped_memfd.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace turbokv {

// Counters are written by the server and read by the client, and count modulo 2^32.
struct StagingHeader {
  uint32_t magic;
  uint32_t slots;
  uint64_t slot_bytes;
  std::atomic<uint32_t> releases;  // of all slots; the client sleeps on it
  uint32_t unused[11];
  std::atomic<uint32_t> consumed[kMaxStagingSlots];  // how often each slot was released
};

namespace {

static_assert(sizeof(StagingHeader) <= kStagingAlignmentBytes);
static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4);

constexpr uint32_t kStagingMagic = 0x31534b54;  // "TKS1"
// How long a client sleeps before it looks whether the server lives.
constexpr absl::Duration kLivenessPeriod = absl::Milliseconds(50);

// Waits while `word` is `expected`: until woken, for `timeout` at most, or for no reason.
void FutexWait(const std::atomic<uint32_t>* word, uint32_t expected, absl::Duration timeout) {
  const timespec relative = absl::ToTimespec(timeout);
  syscall(SYS_futex, word, FUTEX_WAIT, expected, &relative, nullptr, 0);
}

void FutexWakeOne(const std::atomic<uint32_t>* word) {
  syscall(SYS_futex, word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

}  // namespace

absl::Status CheckStagingGeometry(const StagingGeometry& geometry) {
  if (geometry.slots < 1 || geometry.slots > kMaxStagingSlots) {
    return absl::InvalidArgumentError(
        absl::StrCat("staging with ", geometry.slots, " slots: must be 1..", kMaxStagingSlots));
  }
  if (geometry.slot_bytes == 0 || geometry.slot_bytes > kMaxStagingSlotBytes ||
      geometry.slot_bytes % kStagingAlignmentBytes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("staging slots of ", geometry.slot_bytes, " bytes: must be a multiple of ",
                     kStagingAlignmentBytes, ", at most ", kMaxStagingSlotBytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<StagingMemory> StagingMemory::Map(int fd, const StagingGeometry& geometry) {
  void* base = mmap(nullptr, geometry.region_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot map staging of ", geometry.region_bytes(), " bytes: ", std::strerror(errno)));
  }
  return StagingMemory(static_cast<uint8_t*>(base), geometry);
}

StagingMemory::~StagingMemory() {
  if (base_ != nullptr) munmap(base_, geometry_.region_bytes());
}

absl::StatusOr<std::unique_ptr<StagingRegion>> StagingRegion::Create(
    const StagingGeometry& geometry) {
  TURBOKV_RETURN_IF_ERROR(CheckStagingGeometry(geometry));
  UniqueFd fd(memfd_create("turbokv-staging", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  // F_SEAL_SEAL: the client cannot add seals of its own.
  if (!fd || ftruncate(fd.get(), static_cast<off_t>(geometry.region_bytes())) != 0 ||
      fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot make staging of ", geometry.region_bytes(), " bytes: ", std::strerror(errno)));
  }
  TURBOKV_ASSIGN_OR_RETURN(StagingMemory memory, StagingMemory::Map(fd.get(), geometry));
  StagingHeader* header = memory.header();
  header->magic = kStagingMagic;
  header->slots = geometry.slots;
  header->slot_bytes = geometry.slot_bytes;
  return absl::WrapUnique(new StagingRegion(std::move(fd), std::move(memory)));
}

StagingRegion::StagingRegion(UniqueFd fd, StagingMemory memory)
    : fd_(std::move(fd)), memory_(std::move(memory)), consumed_(memory_.geometry().slots) {}

absl::StatusOr<absl::Span<const uint8_t>> StagingRegion::Slot(uint32_t slot, uint64_t offset_bytes,
                                                              uint64_t bytes) const {
  const StagingGeometry& geometry = memory_.geometry();
  if (slot >= geometry.slots) {
    return absl::InvalidArgumentError(
        absl::StrCat("staging slot ", slot, ": there are ", geometry.slots));
  }
  if (offset_bytes > geometry.slot_bytes || bytes > geometry.slot_bytes - offset_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(bytes, " bytes at byte ", offset_bytes,
                                                   " of a staging slot: it has ",
                                                   geometry.slot_bytes, " bytes"));
  }
  uint8_t* const begin = memory_.slot(slot) + offset_bytes;
  // Where a client wrote nothing, or punched a hole, reading takes fresh memory. If there is none
  // this fails, and reading would raise a signal. (EINVAL: Linux before 5.14 cannot tell.)
  const uint64_t misaligned_bytes = offset_bytes % kStagingAlignmentBytes;
  if (bytes > 0 &&
      madvise(begin - misaligned_bytes, bytes + misaligned_bytes, MADV_POPULATE_READ) != 0 &&
      errno != EINVAL) {
    return absl::ResourceExhaustedError(absl::StrCat("staging slot ", slot, ": no memory for ",
                                                     bytes, " bytes: ", std::strerror(errno)));
  }
  return absl::Span<const uint8_t>(begin, bytes);
}

absl::Status StagingRegion::Release(uint32_t slot) {
  if (slot >= memory_.geometry().slots) {
    return absl::InvalidArgumentError(
        absl::StrCat("staging slot ", slot, ": there are ", memory_.geometry().slots));
  }
  StagingHeader* const header = memory_.header();
  MutexLock lock(&mutex_);
  header->consumed[slot].store(++consumed_[slot], std::memory_order_release);
  header->releases.store(++releases_, std::memory_order_release);
  FutexWakeOne(&header->releases);
  return absl::OkStatus();
}

StagingSlot::~StagingSlot() {
  if (client_ != nullptr) client_->GiveBack(index_, false);
}

void StagingSlot::Announce() && { std::exchange(client_, nullptr)->GiveBack(index_, true); }

absl::StatusOr<std::unique_ptr<StagingClient>> StagingClient::Create(
    const UniqueFd& fd, const StagingGeometry& geometry, std::shared_ptr<const FdSocket> socket) {
  TURBOKV_RETURN_IF_ERROR(CheckStagingGeometry(geometry));
  TURBOKV_RETURN_IF_ERROR(CheckSealedMemory("staging", fd.get(), geometry.region_bytes()));
  TURBOKV_ASSIGN_OR_RETURN(StagingMemory memory, StagingMemory::Map(fd.get(), geometry));
  if (memory.header()->magic != kStagingMagic) {
    return absl::InvalidArgumentError("staging: the memory does not begin with its header");
  }
  return absl::WrapUnique(new StagingClient(std::move(memory), std::move(socket)));
}

StagingClient::StagingClient(StagingMemory memory, std::shared_ptr<const FdSocket> socket)
    : memory_(std::move(memory)), socket_(std::move(socket)), slots_(memory_.geometry().slots) {}

absl::StatusOr<StagingSlot> StagingClient::AcquireSlot(absl::Time deadline) {
  const StagingHeader& header = *memory_.header();
  const uint32_t slot_count = memory_.geometry().slots;
  while (true) {
    if (!socket_->PeerAlive()) {
      return absl::UnavailableError("waiting for a staging slot: the server has gone");
    }
    // Read before the slots: a release after the look at them changes it, and ends the sleep.
    const uint32_t seen = header.releases.load(std::memory_order_acquire);
    {
      MutexLock lock(&mutex_);
      for (uint32_t i = 0; i < slot_count; ++i) {
        const uint32_t slot = (next_ + i) % slot_count;
        SlotState& state = slots_[slot];
        if (state.held ||
            header.consumed[slot].load(std::memory_order_acquire) != state.announced) {
          continue;
        }
        state.held = true;
        next_ = (slot + 1) % slot_count;
        return StagingSlot(this, slot,
                           absl::MakeSpan(memory_.slot(slot), memory_.geometry().slot_bytes));
      }
    }
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(
          absl::StrCat("waiting for a staging slot: all ", slot_count, " are in use"));
    }
    FutexWait(&header.releases, seen, std::min(left, kLivenessPeriod));
  }
}

void StagingClient::GiveBack(uint32_t slot, bool announced) {
  MutexLock lock(&mutex_);
  slots_[slot].held = false;
  if (announced) ++slots_[slot].announced;
}

}  // namespace turbokv
