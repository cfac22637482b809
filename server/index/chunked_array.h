// An array that grows without moving its elements, in chunks of 2 MiB.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

namespace turbokv {

// Elements may be read and written beside Append by whoever knows that they exist.
template <typename T>
class ChunkedArray {
 public:
  static constexpr size_t kChunkBytes = size_t{2} << 20;
  static constexpr size_t kChunkItems = kChunkBytes / sizeof(T);
  static_assert((kChunkItems & (kChunkItems - 1)) == 0, "the size of T is a power of two");
  static_assert(std::is_trivially_destructible_v<T>);

  explicit ChunkedArray(size_t max_items) : chunks_((max_items + kChunkItems - 1) / kChunkItems) {}

  T& operator[](size_t i) { return chunks_[i / kChunkItems].get()[i % kChunkItems]; }
  const T& operator[](size_t i) const { return chunks_[i / kChunkItems].get()[i % kChunkItems]; }

  // Adds a value-initialised element; false at max_items (rounded up to chunks) or without memory.
  bool Append() {
    const size_t chunk = size_ / kChunkItems;
    if (chunk == chunks_.size()) return false;
    if (chunks_[chunk] == nullptr) {
      void* memory = std::aligned_alloc(kChunkBytes, kChunkBytes);
      if (memory == nullptr) return false;
      madvise(memory, kChunkBytes, MADV_HUGEPAGE);  // a hint: fewer TLB misses in lookups
      chunks_[chunk].reset(static_cast<T*>(memory));
    }
    new (&(*this)[size_]) T();
    ++size_;
    return true;
  }

  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T) + chunks_.size() * sizeof(chunks_[0]); }

 private:
  struct FreeDeleter {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::vector<std::unique_ptr<T, FreeDeleter>> chunks_;  // never resized: readers hold no lock
  size_t size_ = 0;
};

}  // namespace turbokv
