// A slab of an arena as another process of the same host can map it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace turbokv {

// What another process on this host can map a slab by. A file descriptor, or (memory without one)
// the bytes of a CUDA IPC handle. The values are sent between processes: never renumber them.
enum class ShareKind : uint8_t {
  kNone = 0,     // cannot be shared
  kMemfd = 1,    // host memory: mmap
  kCudaFd = 2,   // GPU memory: cuMemImportFromShareableHandle, POSIX file descriptor
  kCudaIpc = 3,  // GPU memory: cudaIpcOpenMemHandle
  kFakeFd = 4,   // memory of a fake device: mmap
};

inline constexpr size_t kIpcHandleBytes = 64;

struct SharedSlab {
  ShareKind kind = ShareKind::kNone;
  int fd = -1;  // owned by the receiver of this struct; -1: none
  uint8_t ipc_handle[kIpcHandleBytes] = {};
};

// How an arena is cut: slab i lies at i * slab_bytes.
struct SlabGeometry {
  uint64_t slab_bytes = 0;
  uint32_t slab_count = 0;
  bool operator==(const SlabGeometry&) const = default;
};

// A shared slab with what the receiver needs to place it. `generation` counts how often the slab
// got other memory: a mapping of another generation shows other, older bytes.
struct PlacedSlab {
  SharedSlab memory;
  SlabGeometry geometry;
  uint64_t generation = 0;
};

// Where a block or a tail begins in the server's memory, as it tells it. Untrusted.
struct SharedPlace {
  uint32_t pool = 0;  // 0: host memory
  uint64_t offset_bytes = 0;
  uint32_t generation = 0;  // of the slab there
};

}  // namespace turbokv
