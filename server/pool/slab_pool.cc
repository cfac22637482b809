#include "server/pool/slab_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace turbokv {
namespace {

constexpr size_t kMinChosenSlabBytes = size_t{1} << 20;
constexpr size_t kMaxChosenSlabBytes = size_t{128} << 20;
constexpr size_t kChosenSlabCount = 32;
constexpr size_t kMaxSlabs = size_t{1} << 20;

constexpr size_t RoundDown(size_t bytes, size_t multiple) { return bytes / multiple * multiple; }

}  // namespace

size_t ChooseSlabBytes(size_t budget_bytes, size_t requested_slab_bytes) {
  if (requested_slab_bytes != 0) return requested_slab_bytes;
  const size_t chosen =
      std::clamp(budget_bytes / kChosenSlabCount, kMinChosenSlabBytes, kMaxChosenSlabBytes);
  return RoundDown(std::min(chosen, budget_bytes), kSlabAlignmentBytes);
}

absl::StatusOr<std::unique_ptr<SlabPool>> SlabPool::Create(size_t budget_bytes, size_t slab_bytes) {
  if (slab_bytes == 0 || slab_bytes % kSlabAlignmentBytes != 0) {
    return absl::InvalidArgumentError(absl::StrCat("slab size of ", slab_bytes,
                                                   " bytes: must be a positive multiple of ",
                                                   kSlabAlignmentBytes));
  }
  if (slab_bytes > budget_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("slab size of ", slab_bytes,
                                                   " bytes: more than the memory budget of ",
                                                   budget_bytes, " bytes"));
  }
  const size_t slab_count = budget_bytes / slab_bytes;
  if (slab_count > kMaxSlabs) {
    return absl::InvalidArgumentError(absl::StrCat("slab size of ", slab_bytes, " bytes: cuts ",
                                                   budget_bytes, " bytes into ", slab_count,
                                                   " slabs, more than ", kMaxSlabs));
  }
  if (slab_bytes / kExtentAlignmentBytes > kEndOfList) {
    return absl::InvalidArgumentError(absl::StrCat(
        "slab size of ", slab_bytes, " bytes: more than ", kEndOfList * kExtentAlignmentBytes));
  }
  const size_t mapped_bytes = slab_count * slab_bytes;
  void* base = mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot map a memory budget of ", mapped_bytes,
                                                     " bytes: ", std::strerror(errno)));
  }
  madvise(base, mapped_bytes, MADV_HUGEPAGE);  // a hint; the pool works without
  return absl::WrapUnique(new SlabPool(static_cast<uint8_t*>(base), mapped_bytes, slab_bytes,
                                       static_cast<uint32_t>(slab_count)));
}

SlabPool::SlabPool(uint8_t* base, size_t mapped_bytes, size_t slab_bytes, uint32_t slab_count)
    : base_(base), mapped_bytes_(mapped_bytes), slab_bytes_(slab_bytes), slabs_(slab_count) {
  empty_slabs_.reserve(slab_count);
  // Lowest addresses are taken first, so that a pool in little use touches little memory.
  for (uint32_t slab = slab_count; slab > 0; --slab) empty_slabs_.push_back(slab - 1);
  bookkeeping_bytes_ = slab_count * (sizeof(Slab) + sizeof(uint32_t));
}

SlabPool::~SlabPool() { munmap(base_, mapped_bytes_); }

std::optional<Extent> SlabPool::Allocate(size_t class_bytes, uint32_t owner) {
  const auto with_room = slabs_with_room_.find(class_bytes);
  const uint32_t slab_id =
      with_room != slabs_with_room_.end() ? with_room->second : TakeEmptySlab(class_bytes);
  if (slab_id == kNone) return std::nullopt;
  Slab& slab = slabs_[slab_id];
  uint32_t index;
  if (slab.first_free != kEndOfList) {
    index = slab.first_free;
    slab.first_free = slab.slots[index] & ~kFreeBit;
  } else {
    index = slab.touched++;
  }
  slab.slots[index] = owner;
  if (++slab.used == slab.capacity) UnlinkSlab(slab_id);
  used_bytes_ += class_bytes;
  return Extent{slab_id, index};
}

void SlabPool::Free(Extent extent) {
  Slab& slab = slabs_[extent.slab];
  used_bytes_ -= slab.class_bytes;
  slab.slots[extent.index] = slab.first_free | kFreeBit;
  slab.first_free = extent.index;
  if (slab.used-- == slab.capacity) LinkSlab(extent.slab);
  if (slab.used == 0) ReturnSlab(extent.slab);
}

std::vector<uint32_t> SlabPool::Owners(uint32_t slab_id) const {
  const Slab& slab = slabs_[slab_id];
  std::vector<uint32_t> owners;
  owners.reserve(slab.used);
  for (uint32_t index = 0; index < slab.touched; ++index) {
    if ((slab.slots[index] & kFreeBit) == 0) owners.push_back(slab.slots[index]);
  }
  return owners;
}

uint32_t SlabPool::TakeEmptySlab(size_t class_bytes) {
  if (empty_slabs_.empty()) return kNone;
  const uint32_t slab_id = empty_slabs_.back();
  empty_slabs_.pop_back();
  Slab& slab = slabs_[slab_id];
  slab.class_bytes = class_bytes;
  slab.capacity = static_cast<uint32_t>(slab_bytes_ / class_bytes);
  slab.touched = 0;
  slab.first_free = kEndOfList;
  slab.slots.reset(new uint32_t[slab.capacity]);  // written as extents are first used
  bookkeeping_bytes_ += slab.capacity * sizeof(uint32_t);
  reserved_bytes_ += slab_bytes_;
  LinkSlab(slab_id);
  return slab_id;
}

void SlabPool::ReturnSlab(uint32_t slab_id) {
  UnlinkSlab(slab_id);
  Slab& slab = slabs_[slab_id];
  bookkeeping_bytes_ -= slab.capacity * sizeof(uint32_t);
  slab.class_bytes = 0;
  slab.slots.reset();
  reserved_bytes_ -= slab_bytes_;
  empty_slabs_.push_back(slab_id);
}

void SlabPool::LinkSlab(uint32_t slab_id) {
  Slab& slab = slabs_[slab_id];
  const auto [head, is_new] = slabs_with_room_.try_emplace(slab.class_bytes, slab_id);
  slab.previous = kNone;
  slab.next = is_new ? kNone : head->second;
  if (slab.next != kNone) slabs_[slab.next].previous = slab_id;
  head->second = slab_id;
}

void SlabPool::UnlinkSlab(uint32_t slab_id) {
  const Slab& slab = slabs_[slab_id];
  if (slab.next != kNone) slabs_[slab.next].previous = slab.previous;
  if (slab.previous != kNone) {
    slabs_[slab.previous].next = slab.next;
  } else if (slab.next != kNone) {
    slabs_with_room_[slab.class_bytes] = slab.next;
  } else {
    slabs_with_room_.erase(slab.class_bytes);
  }
}

}  // namespace turbokv
