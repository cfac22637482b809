// A pool of turbokvd mirrored in this process: byte `offset` of the arena lies at base() + offset,
// read-only, once its slab is mapped.
//
// What is mapped is the server's memory: its bytes are not trusted, and can change until the lease
// says that they do not. A lease keeps a slab's memory as it is; without one, a slab that the
// server has renewed shows what it had before, and a mapping of the new generation takes its place.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "client/share/share_session.h"
#include "client/share/slab_importer.h"

namespace turbokv {

// Threads: any. A slab is mapped anew under its readers' feet when Ensure is called with a newer
// generation: by then nobody may hold a lease on what was there. Of one session: a server that was
// started again counts generations anew, and needs new pools.
class MappedPool {
 public:
  // `pool` is the server's number for it; `geometry` what the importer was made for.
  // INVALID_ARGUMENT as CheckSlabGeometry.
  static absl::StatusOr<std::unique_ptr<MappedPool>> Create(std::shared_ptr<ShareSession> session,
                                                            uint32_t pool,
                                                            const SlabGeometry& geometry,
                                                            std::unique_ptr<SlabImporter> importer);

  uint32_t pool() const { return pool_; }
  const SlabGeometry& geometry() const { return geometry_; }
  const uint8_t* base() const { return importer_->base(); }

  // Maps `slab` unless that generation of it is mapped. FAILED_PRECONDITION: the server has renewed
  // the slab since, or cut the pool otherwise: look up again. INVALID_ARGUMENT: no such slab, or
  // the server sent what cannot be mapped. Else as ShareSession::MapSlab.
  absl::Status Ensure(uint64_t lease_id, uint32_t slab, uint64_t generation);

  // As the end of Ensure, for an offer that the session gave before: the first one tells the
  // geometry and kind that a pool is made from.
  absl::Status Map(uint32_t slab, const SlabOffer& offer);

  bool IsMapped(uint32_t slab, uint64_t generation) const;

  // The bytes at `offset_bytes` of the arena, as an untrusted server may have told it.
  // INVALID_ARGUMENT: beyond the pool. FAILED_PRECONDITION: in a slab that is not mapped. Host
  // memory only: of a GPU, the addresses are not to be read.
  absl::StatusOr<absl::Span<const uint8_t>> Bytes(uint64_t offset_bytes, uint64_t bytes) const;

 private:
  MappedPool(std::shared_ptr<ShareSession> session, uint32_t pool, const SlabGeometry& geometry,
             std::unique_ptr<SlabImporter> importer);
  absl::Status CheckSlab(uint32_t slab) const;
  absl::Status Renewed(uint32_t slab, uint64_t is, uint64_t wanted) const;

  const std::shared_ptr<ShareSession> session_;
  const uint32_t pool_;
  const SlabGeometry geometry_;
  const std::unique_ptr<SlabImporter> importer_;
  mutable Mutex mutex_;
  std::vector<std::optional<uint64_t>> generations_ ABSL_GUARDED_BY(mutex_);  // of what is mapped
};

}  // namespace turbokv
