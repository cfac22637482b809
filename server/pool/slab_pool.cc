#include "server/pool/slab_pool.h"

#include <algorithm>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/logging.h"

namespace turbokv {
namespace {

constexpr size_t kMinChosenSlabBytes = size_t{1} << 20;
constexpr size_t kMaxChosenSlabBytes = size_t{128} << 20;
constexpr size_t kChosenSlabCount = 32;

constexpr size_t RoundDown(size_t bytes, size_t multiple) { return bytes / multiple * multiple; }

}  // namespace

size_t ChooseSlabBytes(size_t budget_bytes, size_t requested_slab_bytes) {
  if (requested_slab_bytes != 0) return requested_slab_bytes;
  const size_t chosen =
      std::clamp(budget_bytes / kChosenSlabCount, kMinChosenSlabBytes, kMaxChosenSlabBytes);
  return RoundDown(std::min(chosen, budget_bytes), kSlabAlignmentBytes);
}

absl::StatusOr<std::unique_ptr<SlabPool>> SlabPool::Create(std::unique_ptr<Arena> arena) {
  if (arena->slab_bytes() / kExtentAlignmentBytes > kEndOfList) {
    return absl::InvalidArgumentError(absl::StrCat("slab size of ", arena->slab_bytes(),
                                                   " bytes: more than ",
                                                   kEndOfList * kExtentAlignmentBytes));
  }
  return absl::WrapUnique(new SlabPool(std::move(arena)));
}

SlabPool::SlabPool(std::unique_ptr<Arena> arena)
    : arena_(std::move(arena)),
      base_(arena_->base()),
      slab_bytes_(arena_->slab_bytes()),
      slabs_(arena_->slab_count()) {
  empty_slabs_.reserve(slabs_.size());
  // Lowest addresses are taken first, so that a pool in little use touches little memory.
  for (uint32_t slab = slab_count(); slab > 0; --slab) empty_slabs_.push_back(slab - 1);
  bookkeeping_bytes_ = slabs_.size() * (sizeof(Slab) + sizeof(uint32_t));
}

std::optional<Extent> SlabPool::Allocate(const SizeClass& size_class, uint32_t owner) {
  const auto with_room = slabs_with_room_.find(size_class);
  const uint32_t slab_id =
      with_room != slabs_with_room_.end() ? with_room->second : TakeEmptySlab(size_class);
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
  used_bytes_ += size_class.bytes;
  return Extent{slab_id, index};
}

void SlabPool::Free(Extent extent) {
  Slab& slab = slabs_[extent.slab];
  used_bytes_ -= slab.size_class.bytes;
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

uint32_t SlabPool::TakeEmptySlab(const SizeClass& size_class) {
  if (empty_slabs_.empty()) return kNone;
  const uint32_t slab_id = empty_slabs_.back();
  Slab& slab = slabs_[slab_id];
  if (slab.last_group != size_class.group) {
    // Without other memory there is no room: what this group writes must not be seen elsewhere.
    if (const absl::Status renewed = arena_->Renew(slab_id); !renewed.ok()) {
      LogWarning("a shared slab cannot be renewed", {{"reason", renewed.message()}});
      return kNone;
    }
    slab.last_group = size_class.group;
    ++slab.generation;
  }
  empty_slabs_.pop_back();
  slab.size_class = size_class;
  slab.capacity = static_cast<uint32_t>(slab_bytes_ / size_class.bytes);
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
  slab.size_class = SizeClass();
  slab.slots.reset();
  reserved_bytes_ -= slab_bytes_;
  empty_slabs_.push_back(slab_id);
}

void SlabPool::LinkSlab(uint32_t slab_id) {
  Slab& slab = slabs_[slab_id];
  const auto [head, is_new] = slabs_with_room_.try_emplace(slab.size_class, slab_id);
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
    slabs_with_room_[slab.size_class] = slab.next;
  } else {
    slabs_with_room_.erase(slab.size_class);
  }
}

}  // namespace turbokv
