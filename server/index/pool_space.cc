#include "server/index/pool_space.h"

#include <utility>

namespace turbokv {

PoolSpace::PoolSpace(std::unique_ptr<SlabPool> slabs, EntryArray* entries)
    : slabs_(std::move(slabs)), entries_(*entries), held_in_slab_(slabs_->slab_count()) {}

AgeList* PoolSpace::HoldClass(const SizeClass& size_class) {
  auto& ages = classes_[size_class];
  if (ages == nullptr) {
    ages = std::make_unique<AgeList>();
    ages->size_class = size_class;
  }
  ++ages->geometries;
  return ages.get();
}

void PoolSpace::DropClass(AgeList* ages) {
  if (--ages->geometries == 0) classes_.erase(SizeClass(ages->size_class));
}

void PoolSpace::AppendYoungest(AgeList* ages, EntryId id, uint64_t now) {
  Entry& entry = entries_[id];
  entry.last_use = now;
  entry.younger = kNoEntry;
  entry.older = std::exchange(ages->youngest, id);
  (entry.older == kNoEntry ? ages->oldest : entries_[entry.older].younger) = id;
}

void PoolSpace::RemoveFromAges(AgeList* ages, EntryId id) {
  Entry& entry = entries_[id];
  (entry.older == kNoEntry ? ages->oldest : entries_[entry.older].younger) = entry.younger;
  (entry.younger == kNoEntry ? ages->youngest : entries_[entry.younger].older) = entry.older;
}

void PoolSpace::Hold(Extent extent) {
  ++held_in_slab_[extent.slab];
  held_bytes_ += slabs_->size_class(extent.slab).bytes;
}

void PoolSpace::Unhold(Extent extent) {
  --held_in_slab_[extent.slab];
  held_bytes_ -= slabs_->size_class(extent.slab).bytes;
}

std::vector<EntryId> PoolSpace::VictimsFor(const AgeList& wanted, size_t count) const {
  const AgeList* eldest = OldestClass();
  if (eldest == nullptr) return {};
  if (eldest != &wanted) {
    // One extent of another class is no use: its whole slab has to change class.
    const uint32_t slab = entries_[eldest->oldest].extent.slab;
    if (SlabIsUnheld(slab)) return slabs_->Owners(slab);
    if (wanted.oldest == kNoEntry) {
      const std::optional<uint32_t> smallest = SmallestUnheldSlab();
      return smallest ? slabs_->Owners(*smallest) : std::vector<EntryId>();
    }
  }
  std::vector<EntryId> victims;
  for (EntryId id = wanted.oldest; id != kNoEntry && victims.size() < count;
       id = entries_[id].younger) {
    victims.push_back(id);
  }
  return victims;
}

std::vector<EntryId> PoolSpace::AllOwners() const {
  std::vector<EntryId> owners;
  for (uint32_t slab = 0; slab < slabs_->slab_count(); ++slab) {
    if (slabs_->used_extents(slab) == 0) continue;
    const std::vector<EntryId> of_slab = slabs_->Owners(slab);
    owners.insert(owners.end(), of_slab.begin(), of_slab.end());
  }
  return owners;
}

const AgeList* PoolSpace::OldestClass() const {
  const AgeList* oldest = nullptr;
  for (const auto& [size_class, ages] : classes_) {
    if (ages->oldest == kNoEntry) continue;
    if (oldest == nullptr || entries_[ages->oldest].last_use < entries_[oldest->oldest].last_use) {
      oldest = ages.get();
    }
  }
  return oldest;
}

// The one with the fewest entries among those that nobody holds.
std::optional<uint32_t> PoolSpace::SmallestUnheldSlab() const {
  std::optional<uint32_t> best;
  for (uint32_t slab = 0; slab < slabs_->slab_count(); ++slab) {
    if (!SlabIsUnheld(slab) || slabs_->used_extents(slab) == 0) continue;
    if (!best || slabs_->used_extents(slab) < slabs_->used_extents(*best)) best = slab;
  }
  return best;
}

}  // namespace turbokv
