// Extents of an arena: each slab serves extents of one size class, of one group, at a time.
//
// Invariants
//   1. Every extent lies inside one slab, at a multiple of its slab's class, and extents in use do
//      not overlap.
//   2. A slab with no extent in use belongs to no class: any class may take it.
//   3. What a slab holds was written for one group. A slab that was shared gets other memory before
//      it serves another group: a process that still maps it sees nothing of them.
//
// Extents are handed out as they were left. What reads them again must have been written by their
// new owner first; pages are, since encoding and receiving both write every byte of a page.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "server/pool/arena.h"

namespace turbokv {

inline constexpr size_t kExtentAlignmentBytes = 128;
inline constexpr size_t kSlabAlignmentBytes = 4096;

// Owners are numbers below 2^31.
inline constexpr uint32_t kMaxExtentOwner = (uint32_t{1} << 31) - 1;

// The size class of extents of `bytes`.
constexpr size_t ExtentClassBytes(size_t bytes) {
  return (bytes + kExtentAlignmentBytes - 1) / kExtentAlignmentBytes * kExtentAlignmentBytes;
}

// Extents of one size that may stand in one slab. Groups are what must not share a slab: tenants,
// where slabs are mapped by clients.
struct SizeClass {
  size_t bytes = 0;  // ExtentClassBytes(x) for some x
  uint64_t group = 0;

  bool operator==(const SizeClass&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const SizeClass& c) {
    return H::combine(std::move(h), c.bytes, c.group);
  }
};

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
  // INVALID_ARGUMENT: slabs too large to count their extents.
  static absl::StatusOr<std::unique_ptr<SlabPool>> Create(std::unique_ptr<Arena> arena);
  SlabPool(const SlabPool&) = delete;
  SlabPool& operator=(const SlabPool&) = delete;

  // An extent of `size_class` for `owner`; nullopt when neither a slab of this class nor an empty
  // slab has room. Precondition: size_class.bytes is in 1..slab_bytes(); owner <= kMaxExtentOwner.
  std::optional<Extent> Allocate(const SizeClass& size_class, uint32_t owner);
  void Free(Extent extent);

  uint8_t* Address(Extent extent) const { return base_ + OffsetBytes(extent); }
  // From the arena's base.
  size_t OffsetBytes(Extent extent) const {
    return extent.slab * slab_bytes_ + extent.index * slabs_[extent.slab].size_class.bytes;
  }
  // Whether Allocate would succeed.
  bool HasRoom(const SizeClass& size_class) const {
    return !empty_slabs_.empty() || slabs_with_room_.contains(size_class);
  }

  // A handle for another process to map `slab` by. Precondition: it has extents in use.
  absl::StatusOr<SharedSlab> Share(uint32_t slab) { return arena_->Share(slab); }

  // Owners of the extents in use in `slab`.
  std::vector<uint32_t> Owners(uint32_t slab) const;
  const SizeClass& size_class(uint32_t slab) const { return slabs_[slab].size_class; }
  // Changes when other memory takes the slab's place.
  uint32_t generation(uint32_t slab) const { return slabs_[slab].generation; }
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
    SizeClass size_class;     // 0 bytes: empty, of no class
    uint64_t last_group = 0;  // whose bytes are still in it
    uint32_t generation = 0;
    uint32_t used = 0;
    uint32_t touched = 0;  // slots from here on were never used since the slab joined its class
    uint32_t capacity = 0;
    uint32_t first_free = kEndOfList;  // among slots below `touched`
    uint32_t previous = kNone;  // neighbours in the list of slabs of the class that have room
    uint32_t next = kNone;
    std::unique_ptr<uint32_t[]> slots;
  };

  explicit SlabPool(std::unique_ptr<Arena> arena);
  uint32_t TakeEmptySlab(const SizeClass& size_class);
  void ReturnSlab(uint32_t slab);
  void LinkSlab(uint32_t slab);
  void UnlinkSlab(uint32_t slab);

  const std::unique_ptr<Arena> arena_;
  uint8_t* const base_;
  const size_t slab_bytes_;
  std::vector<Slab> slabs_;
  std::vector<uint32_t> empty_slabs_;
  absl::flat_hash_map<SizeClass, uint32_t> slabs_with_room_;  // class -> head of its list
  size_t used_bytes_ = 0;
  size_t reserved_bytes_ = 0;
  size_t bookkeeping_bytes_ = 0;
};

}  // namespace turbokv
