// A bound on the memory of all store streams that assemble raw pages.
#pragma once

#include <atomic>
#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace turbokv {

// The largest raw page (K and V of 128 tokens) that is encoded, and the memory in which all streams
// together assemble pages. Part of the constant in docs/operations.md, "Memory".
inline constexpr size_t kMaxRawPageBytes = size_t{64} << 20;
inline constexpr size_t kStagingBudgetBytes = size_t{256} << 20;

// Threads: any. Grants outlive no budget.
class StagingBudget {
 public:
  class Grant {
   public:
    Grant() = default;
    Grant(StagingBudget* budget, size_t bytes) : budget_(budget), bytes_(bytes) {}
    Grant(Grant&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
    Grant& operator=(Grant&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Grant() {
      if (budget_ != nullptr) budget_->used_bytes_ -= bytes_;
    }

   private:
    StagingBudget* budget_ = nullptr;
    size_t bytes_ = 0;
  };

  // RESOURCE_EXHAUSTED when the other streams leave too little.
  absl::StatusOr<Grant> Take(size_t bytes) {
    const size_t used = used_bytes_.fetch_add(bytes) + bytes;
    Grant grant(this, bytes);
    if (used > kStagingBudgetBytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the streams under way leave less than the ", bytes,
                       " bytes that assembling one raw page takes, of ", kStagingBudgetBytes));
    }
    return grant;
  }

 private:
  std::atomic<size_t> used_bytes_{0};
};

}  // namespace turbokv
