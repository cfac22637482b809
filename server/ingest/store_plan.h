// What a store stream has announced, checked.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/cache_spec.h"

namespace turbokv {

// As many keys as fit a message; 8 Mi tokens.
inline constexpr uint64_t kMaxBlocksPerRequest = 65536;
// Positions beyond this are a mistake, not a context.
inline constexpr uint64_t kMaxTokenPosition = uint64_t{1} << 40;

enum class StoreEncoding : uint8_t { kRaw, kPages };

// The announcement as it came. Borrowed strings.
struct StoreAnnouncement {
  CacheSpec spec;
  StoreEncoding encoding = StoreEncoding::kRaw;
  uint64_t first_token = 0;
  uint64_t token_count = 0;
  absl::string_view block_keys;
  absl::string_view tail_key;
};

struct StorePlan {
  std::shared_ptr<const ResolvedSpec> spec;
  StoreEncoding encoding = StoreEncoding::kRaw;
  int64_t first_token = 0;
  int64_t token_count = 0;
  std::vector<Digest> block_keys;
  std::optional<Digest> tail_key;
  int64_t tail_begin = 0;  // position of the tail's first token; meaningful with a tail key
  int tail_tokens = 0;     // 0 without a tail key

  int64_t blocks() const { return static_cast<int64_t>(block_keys.size()); }
  size_t raw_page_bytes() const { return kPageTokens * spec->raw_token_bytes(); }
};

// Untrusted input, checked before anything is allocated for it. INVALID_ARGUMENT (or UNIMPLEMENTED,
// from the policy) names the field, its value and the limit.
absl::StatusOr<StorePlan> PlanStore(const StoreAnnouncement& announcement);

// `keys` cut into digests. INVALID_ARGUMENT: a length that is no multiple of 32, or too many.
absl::StatusOr<std::vector<Digest>> SplitKeys(absl::string_view field, absl::string_view keys);

}  // namespace turbokv
