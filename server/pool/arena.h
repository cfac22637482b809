// Memory that pages live in: one range of addresses of fixed size, cut into slabs of equal size.
//
// Invariants
//   1. The range never moves or grows, and is reserved whole when the arena is made: what fits the
//      budget is there.
//   2. A slab that was shared with another process keeps its bytes readable there; Renew puts other
//      memory in its place, so that whoever still maps the old one sees nothing of what comes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/share/shared_slab.h"

namespace turbokv {

// Threads: the caller serialises Share and Renew; the rest may run beside anything.
class Arena {
 public:
  virtual ~Arena() = default;

  // Of host memory, an address of this process; of a device, a device address.
  virtual uint8_t* base() const = 0;
  virtual size_t slab_bytes() const = 0;
  virtual uint32_t slab_count() const = 0;

  // A handle to map `slab` by, read-only wherever the system can enforce that. UNIMPLEMENTED: this
  // memory cannot be shared, and why.
  virtual absl::StatusOr<SharedSlab> Share(uint32_t slab) = 0;
  // Before a slab that was shared serves somebody else. A no-op for one that never was. An error
  // leaves the slab as it was: it must not be handed out.
  virtual absl::Status Renew(uint32_t slab) = 0;
};

// Host memory. `shareable`: slabs are memfds, and can be shared; else anonymous memory, which the
// system commits page by page as it is first written.
// INVALID_ARGUMENT names the size that is wrong; RESOURCE_EXHAUSTED when the system refuses.
absl::StatusOr<std::unique_ptr<Arena>> MakeHostArena(size_t budget_bytes, size_t slab_bytes,
                                                     bool shareable);

// INVALID_ARGUMENT unless `budget_bytes` can be cut into slabs of `slab_bytes`.
absl::Status CheckArenaSizes(size_t budget_bytes, size_t slab_bytes);

}  // namespace turbokv
