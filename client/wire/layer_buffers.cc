#include "client/wire/layer_buffers.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>

namespace turbokv {
namespace {

constexpr size_t kMaxIdle = 2;
constexpr size_t kAlignmentBytes = 128;
constexpr size_t kHugePageBytes = size_t{2} << 20;

}  // namespace

void LayerBuffers::Free::operator()(uint8_t* bytes) const { std::free(bytes); }

LayerBuffers::Buffer LayerBuffers::Allocate(size_t bytes) {
  const bool huge = bytes >= kHugePageBytes;
  const size_t alignment = huge ? kHugePageBytes : kAlignmentBytes;
  const size_t capacity = (bytes + alignment - 1) / alignment * alignment;
  auto* memory = static_cast<uint8_t*>(std::aligned_alloc(alignment, capacity));
  if (memory == nullptr) throw std::bad_alloc();
  if (huge) madvise(memory, capacity, MADV_HUGEPAGE);  // fewer faults where the system has them
  return {std::unique_ptr<uint8_t, Free>(memory), capacity};
}

std::shared_ptr<uint8_t> LayerBuffers::Get(size_t bytes) {
  Buffer buffer;
  {
    MutexLock lock(&mutex_);
    for (Buffer& idle : idle_) {
      if (idle.capacity_bytes < bytes) continue;
      std::swap(idle, idle_.back());
      buffer = std::move(idle_.back());
      idle_.pop_back();
      break;
    }
  }
  if (buffer.bytes == nullptr) buffer = Allocate(bytes);
  const size_t capacity = buffer.capacity_bytes;
  uint8_t* memory = buffer.bytes.release();
  return std::shared_ptr<uint8_t>(memory, [owner = weak_from_this(), capacity](uint8_t* returned) {
    Buffer back{std::unique_ptr<uint8_t, Free>(returned), capacity};
    if (auto buffers = owner.lock()) buffers->Return(std::move(back));
  });
}

void LayerBuffers::Return(Buffer buffer) {
  MutexLock lock(&mutex_);
  if (idle_.size() < kMaxIdle) {
    idle_.push_back(std::move(buffer));
    return;
  }
  // Full: the largest are worth keeping.
  const auto smaller = [](const Buffer& a, const Buffer& b) {
    return a.capacity_bytes < b.capacity_bytes;
  };
  const auto smallest = std::min_element(idle_.begin(), idle_.end(), smaller);
  if (smaller(*smallest, buffer)) *smallest = std::move(buffer);
}

}  // namespace turbokv
