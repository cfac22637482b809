// Slabs of a turbokvd's pool in GPU memory, mapped in this process for one GPU.
//
// ShareKind::kCudaFd: an address range as long as the arena, in which every slab is mapped at its
// offset, read-only: a kernel that writes there faults. Drivers that know no read-only access to
// GPU memory get read-write (read_only() tells); then a faulty kernel here can damage what others
// of the same tenant read, which the service notices only by its checksums.
//
// ShareKind::kCudaIpc (a service whose GPU has no virtual memory management): one handle opens the
// whole allocation, always writable and with every tenant's pages; base() is its address, from the
// first Import on.
//
// Kernels that read a slab must be done before it is imported again or the importer goes.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "client/share/slab_importer.h"

namespace turbokv {

class CudaSlabImporter : public SlabImporter {
 public:
  // False as soon as something had to be mapped writable.
  virtual bool read_only() const = 0;
};

// For the calling thread's current GPU, which must be the one that the arena is on. UNAVAILABLE: no
// GPU or no driver; UNIMPLEMENTED: a driver older than CUDA 12; INVALID_ARGUMENT as
// CheckSlabGeometry.
//
// Import: INVALID_ARGUMENT also when the driver does not take the descriptor or handle, or it is of
// memory of another size and nothing was mapped there. INTERNAL or RESOURCE_EXHAUSTED: the driver
// refuses (memory of another GPU, for one), and nothing is mapped there now.
absl::StatusOr<std::unique_ptr<CudaSlabImporter>> MakeCudaSlabImporter(
    const SlabGeometry& geometry);

}  // namespace turbokv
