#include "client/share/slab_importer.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/share/mapped_memfd.h"

namespace turbokv {
namespace {

class HostSlabImporter : public SlabImporter {
 public:
  HostSlabImporter(uint8_t* base, const SlabGeometry& geometry)
      : base_(base), geometry_(geometry) {}

  ~HostSlabImporter() override {
    // A range with a hole may contain what others of this process mapped there since.
    if (intact_) munmap(base_, geometry_.slab_bytes * geometry_.slab_count);
  }

  const uint8_t* base() const override { return base_; }

  absl::Status Import(const SharedSlab& slab, uint64_t offset_bytes) override {
    if (slab.kind != ShareKind::kMemfd && slab.kind != ShareKind::kFakeFd) {
      return absl::InvalidArgumentError(absl::StrCat("shared slab: memory of kind ",
                                                     static_cast<int>(slab.kind),
                                                     " cannot be mapped as host memory"));
    }
    TURBOKV_RETURN_IF_ERROR(CheckSealedMemory("shared slab", slab.fd, geometry_.slab_bytes));
    uint8_t* const place = base_ + offset_bytes;
    if (mmap(place, geometry_.slab_bytes, PROT_READ, MAP_SHARED | MAP_FIXED, slab.fd, 0) == place) {
      return absl::OkStatus();
    }
    const std::string reason = std::strerror(errno);
    // A failed call may have unmapped what was there; keep the addresses ours.
    if (mmap(place, geometry_.slab_bytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) != place &&
        errno != EEXIST) {
      intact_ = false;
    }
    return absl::ResourceExhaustedError(
        absl::StrCat("shared slab: cannot map ", geometry_.slab_bytes, " bytes: ", reason));
  }

 private:
  uint8_t* const base_;
  const SlabGeometry geometry_;
  bool intact_ = true;
};

}  // namespace

absl::Status CheckSlabGeometry(const SlabGeometry& geometry) {
  if (geometry.slab_bytes == 0 || geometry.slab_bytes % kSlabAlignmentMultipleBytes != 0) {
    return absl::InvalidArgumentError(absl::StrCat("slabs of ", geometry.slab_bytes,
                                                   " bytes: must be a positive multiple of ",
                                                   kSlabAlignmentMultipleBytes));
  }
  if (geometry.slab_count < 1 || geometry.slab_count > kMaxMappedSlabs) {
    return absl::InvalidArgumentError(
        absl::StrCat(geometry.slab_count, " slabs: must be 1..", kMaxMappedSlabs));
  }
  if (geometry.slab_bytes > kMaxMappedPoolBytes / geometry.slab_count) {
    return absl::InvalidArgumentError(absl::StrCat(geometry.slab_count, " slabs of ",
                                                   geometry.slab_bytes, " bytes: more than ",
                                                   kMaxMappedPoolBytes, " bytes together"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<SlabImporter>> MakeHostSlabImporter(const SlabGeometry& geometry) {
  TURBOKV_RETURN_IF_ERROR(CheckSlabGeometry(geometry));
  const uint64_t bytes = geometry.slab_bytes * geometry.slab_count;
  void* base = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot reserve ", bytes, " bytes of addresses for a pool: ", std::strerror(errno)));
  }
  return absl::WrapUnique<SlabImporter>(
      new HostSlabImporter(static_cast<uint8_t*>(base), geometry));
}

}  // namespace turbokv
