#include "client/share/mapped_pool.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv {

absl::StatusOr<std::unique_ptr<MappedPool>> MappedPool::Create(
    std::shared_ptr<ShareSession> session, uint32_t pool, const SlabGeometry& geometry,
    std::unique_ptr<SlabImporter> importer) {
  TURBOKV_RETURN_IF_ERROR(CheckSlabGeometry(geometry));
  return absl::WrapUnique(new MappedPool(std::move(session), pool, geometry, std::move(importer)));
}

MappedPool::MappedPool(std::shared_ptr<ShareSession> session, uint32_t pool,
                       const SlabGeometry& geometry, std::unique_ptr<SlabImporter> importer)
    : session_(std::move(session)),
      pool_(pool),
      geometry_(geometry),
      importer_(std::move(importer)),
      generations_(geometry.slab_count) {}

absl::Status MappedPool::CheckSlab(uint32_t slab) const {
  if (slab < geometry_.slab_count) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("slab ", slab, " of pool ", pool_, ": it has ", geometry_.slab_count));
}

absl::Status MappedPool::Ensure(uint64_t lease_id, uint32_t slab, uint64_t generation) {
  TURBOKV_RETURN_IF_ERROR(CheckSlab(slab));
  if (IsMapped(slab, generation)) return absl::OkStatus();
  // Without the lock: readers of other slabs go on while the server answers.
  TURBOKV_ASSIGN_OR_RETURN(const SlabOffer offer, session_->MapSlab(lease_id, pool_, slab));
  if (offer.slab.generation != generation) return Renewed(slab, offer.slab.generation, generation);
  return Map(slab, offer);
}

absl::Status MappedPool::Renewed(uint32_t slab, uint64_t is, uint64_t wanted) const {
  return absl::FailedPreconditionError(absl::StrCat(
      "slab ", slab, " of pool ", pool_, ": is of generation ", is, " by now, not ", wanted));
}

absl::Status MappedPool::Map(uint32_t slab, const SlabOffer& offer) {
  TURBOKV_RETURN_IF_ERROR(CheckSlab(slab));
  if (!(offer.slab.geometry == geometry_)) {
    return absl::FailedPreconditionError(
        absl::StrCat("pool ", pool_, ": is cut into ", offer.slab.geometry.slab_count, " slabs of ",
                     offer.slab.geometry.slab_bytes, " bytes, and was into ", geometry_.slab_count,
                     " of ", geometry_.slab_bytes));
  }
  MutexLock lock(&mutex_);
  std::optional<uint64_t>& mapped = generations_[slab];
  if (mapped == offer.slab.generation) return absl::OkStatus();
  // An offer that waited, while another thread mapped what the server had by then.
  if (mapped.has_value() && *mapped > offer.slab.generation) {
    return Renewed(slab, *mapped, offer.slab.generation);
  }
  const absl::Status imported =
      importer_->Import(offer.slab.memory, uint64_t{slab} * geometry_.slab_bytes);
  if (imported.ok()) {
    mapped = offer.slab.generation;
  } else if (imported.code() != absl::StatusCode::kInvalidArgument) {
    mapped.reset();
  }
  return imported;
}

bool MappedPool::IsMapped(uint32_t slab, uint64_t generation) const {
  MutexLock lock(&mutex_);
  return slab < geometry_.slab_count && generations_[slab] == generation;
}

absl::StatusOr<absl::Span<const uint8_t>> MappedPool::Bytes(uint64_t offset_bytes,
                                                            uint64_t bytes) const {
  const uint64_t pool_bytes = geometry_.slab_bytes * geometry_.slab_count;
  if (offset_bytes > pool_bytes || bytes > pool_bytes - offset_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(bytes, " bytes at byte ", offset_bytes,
                                                   " of pool ", pool_, ": it has ", pool_bytes,
                                                   " bytes"));
  }
  if (bytes > 0) {
    MutexLock lock(&mutex_);
    const uint64_t last = (offset_bytes + bytes - 1) / geometry_.slab_bytes;
    for (uint64_t slab = offset_bytes / geometry_.slab_bytes; slab <= last; ++slab) {
      if (!generations_[slab].has_value()) {
        return absl::FailedPreconditionError(
            absl::StrCat("slab ", slab, " of pool ", pool_, " is not mapped"));
      }
    }
  }
  return absl::Span<const uint8_t>(importer_->base() + offset_bytes, bytes);
}

}  // namespace turbokv
