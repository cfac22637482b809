// A bound on bytes that many hold parts of.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace turbokv {

// Threads: any.
class ByteBudget {
 public:
  // Bytes taken, given back on destruction.
  class Grant {
   public:
    Grant(std::shared_ptr<ByteBudget> budget, uint64_t bytes)
        : budget_(std::move(budget)), bytes_(bytes) {}
    Grant(Grant&& other) noexcept = default;
    Grant& operator=(Grant&& other) = delete;
    ~Grant() {
      if (budget_ != nullptr) budget_->used_bytes_ -= bytes_;
    }

   private:
    std::shared_ptr<ByteBudget> budget_;
    uint64_t bytes_;
  };

  explicit ByteBudget(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  // RESOURCE_EXHAUSTED when the others leave too little.
  static absl::StatusOr<Grant> Take(const std::shared_ptr<ByteBudget>& budget, uint64_t bytes) {
    uint64_t used = budget->used_bytes_.load();
    do {
      if (bytes > budget->limit_bytes_ - used) {
        return absl::ResourceExhaustedError(
            absl::StrCat(bytes, " bytes: ", used, " of ", budget->limit_bytes_, " are in use"));
      }
    } while (!budget->used_bytes_.compare_exchange_weak(used, used + bytes));
    return Grant(budget, bytes);
  }

  uint64_t limit_bytes() const { return limit_bytes_; }
  uint64_t used_bytes() const { return used_bytes_; }

 private:
  const uint64_t limit_bytes_;
  std::atomic<uint64_t> used_bytes_{0};  // never above limit_bytes_
};

}  // namespace turbokv
