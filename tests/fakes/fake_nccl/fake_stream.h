// The stream of a device that there is not: counts what was launched and what has finished. Shared
// by the fake library, which moves the counts, and the tests' StreamOps, which read them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace turbokv::fake_nccl {

struct FakeStream {
  std::atomic<uint64_t> launched{0};
  std::atomic<uint64_t> finished{0};
  // Where the stream's device finds an address of its own; null: host memory, as it is.
  void* (*translate)(void* device, void* address, size_t bytes) = nullptr;
  void* device = nullptr;
};

}  // namespace turbokv::fake_nccl
