// Host memory for pages: one mapping of the whole budget, cut into equal slabs, each of which
// serves extents of one size class at a time.
//
// Invariants
//   1. Every extent lies inside one slab, at a multiple of its slab's class, and extents in use do
//      not overlap.
//   2. A slab with no extent in use belongs to no class: any class may take it.
//   3. The mapping never grows: the sum of all slabs is at most the budget.
//
// Extents are handed out as they were left. What reads them again must have been written by their
// new owner first; pages are, since encoding and receiving both write every byte of a page.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace turbokv {

inline constexpr size_t kExtentAlignmentBytes = 128;
inline constexpr size_t kSlabAlignmentBytes = 4096;

// Owners are numbers below 2^31.
inline constexpr uint32_t kMaxExtentOwner = (uint32_t{1} << 31) - 1;

// The size class of extents of `bytes`.
constexpr size_t ExtentClassBytes(size_t bytes) {
  return (bytes + kExtentAlignmentBytes - 1) / kExtentAlignmentBytes * kExtentAlignmentBytes;
}

// The slab size for a budget: explicit, or a 32nd of the budget within 1..128 MiB.
size_t ChooseSlabBytes(size_t budget_bytes, size_t requested_slab_bytes);

// Place of an extent: number `index` of slab `slab`.
struct Extent {
  uint32_t slab = 0;
  uint32_t index = 0;
};

// Threads: the caller serialises all calls, except Address, which may run beside anything while its
// extent is in use.
class SlabPool {
 public:
  // INVALID_ARGUMENT names the size that is wrong; RESOURCE_EXHAUSTED when the system refuses the
  // mapping. Memory is committed by the system page by page, as it is first written.
  static absl::StatusOr<std::unique_ptr<SlabPool>> Create(size_t budget_bytes, size_t slab_bytes);
  ~SlabPool();
  SlabPool(const SlabPool&) = delete;
  SlabPool& operator=(const SlabPool&) = delete;

  // An extent of `class_bytes` for `owner`; nullopt when neither a slab of this class nor an empty
  // slab has room. Precondition: class_bytes is ExtentClassBytes(x) for an x in 1..slab_bytes();
  // owner <= kMaxExtentOwner.
  std::optional<Extent> Allocate(size_t class_bytes, uint32_t owner);
  void Free(Extent extent);

  uint8_t* Address(Extent extent) const {
    return base_ + extent.slab * slab_bytes_ + extent.index * slabs_[extent.slab].class_bytes;
  }

  // Owners of the extents in use in `slab`.
  std::vector<uint32_t> Owners(uint32_t slab) const;
  size_t class_bytes(uint32_t slab) const { return slabs_[slab].class_bytes; }
  uint32_t used_extents(uint32_t slab) const { return slabs_[slab].used; }

  size_t slab_bytes() const { return slab_bytes_; }
  uint32_t slab_count() const { return static_cast<uint32_t>(slabs_.size()); }
  size_t capacity_bytes() const { return slab_bytes_ * slabs_.size(); }
  size_t used_bytes() const { return used_bytes_; }          // extents in use, as classes
  size_t reserved_bytes() const { return reserved_bytes_; }  // slabs that belong to a class
  size_t bookkeeping_bytes() const { return bookkeeping_bytes_; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  // A slot holds its owner, or, marked by this bit, the index of the next free slot.
  static constexpr uint32_t kFreeBit = uint32_t{1} << 31;
  static constexpr uint32_t kEndOfList = kFreeBit - 1;

  struct Slab {
    size_t class_bytes = 0;  // 0: empty, of no class
    uint32_t used = 0;
    uint32_t touched = 0;  // slots from here on were never used since the slab joined its class
    uint32_t capacity = 0;
    uint32_t first_free = kEndOfList;  // among slots below `touched`
    uint32_t previous = kNone;  // neighbours in the list of slabs of the class that have room
    uint32_t next = kNone;
    std::unique_ptr<uint32_t[]> slots;
  };

  SlabPool(uint8_t* base, size_t mapped_bytes, size_t slab_bytes, uint32_t slab_count);
  uint32_t TakeEmptySlab(size_t class_bytes);
  void ReturnSlab(uint32_t slab);
  void LinkSlab(uint32_t slab);
  void UnlinkSlab(uint32_t slab);

  uint8_t* const base_;
  const size_t mapped_bytes_;
  const size_t slab_bytes_;
  std::vector<Slab> slabs_;
  std::vector<uint32_t> empty_slabs_;
  absl::flat_hash_map<size_t, uint32_t> slabs_with_room_;  // class -> head of its list
  size_t used_bytes_ = 0;
  size_t reserved_bytes_ = 0;
  size_t bookkeeping_bytes_ = 0;
};

}  // namespace turbokv
