// Where the slabs of an arena of turbokvd appear in this process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/share/shared_slab.h"

namespace turbokv {

inline constexpr uint64_t kSlabAlignmentMultipleBytes = 4096;
inline constexpr uint32_t kMaxMappedSlabs = uint32_t{1} << 20;
inline constexpr uint64_t kMaxMappedPoolBytes = uint64_t{1}
                                                << 45;  // a part of what x86-64 addresses

// A range of addresses as long as the arena, reserved when the importer is made and given back with
// it. Host memory: HostSlabImporter; GPU memory: implemented with CUDA.
//
// Threads: the caller serialises Import; base() from any.
class SlabImporter {
 public:
  virtual ~SlabImporter() = default;

  // Of host memory, an address of this process; of a GPU, a device address.
  virtual const uint8_t* base() const = 0;

  // Maps `slab` read-only at base() + offset_bytes, in place of what was mapped there. The
  // descriptor stays the caller's. The peer is not trusted. INVALID_ARGUMENT: not memory of this
  // kind and of a slab's size; what was mapped stays. RESOURCE_EXHAUSTED: the system refuses;
  // nothing may be mapped there now.
  virtual absl::Status Import(const SharedSlab& slab, uint64_t offset_bytes) = 0;
};

// INVALID_ARGUMENT names the number and its limit.
absl::Status CheckSlabGeometry(const SlabGeometry& geometry);

// For ShareKind::kMemfd and kFakeFd.
absl::StatusOr<std::unique_ptr<SlabImporter>> MakeHostSlabImporter(const SlabGeometry& geometry);

}  // namespace turbokv
