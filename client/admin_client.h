// Remove and Stats, for tools.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cache_spec.h"
#include "client/channel.h"

namespace turbokv {

struct CodecStats {
  std::string tensor, codec;
  int64_t pages = 0, raw_bytes = 0, kept_bytes = 0, sampled_pages = 0;
  double sampled_relative_mse = 0;
};

struct ServiceStats {
  std::string version;
  int64_t uptime_ms = 0;
  bool draining = false;
  int64_t pool_budget_bytes = 0, pool_used_bytes = 0, pool_reserved_bytes = 0;
  int64_t blocks = 0, tails = 0, leases = 0, leased_blocks = 0, active_stores = 0;
  int64_t raw_bytes = 0, kept_bytes = 0, evicted_blocks = 0, hit_tokens = 0, missed_tokens = 0;
  std::vector<CodecStats> codecs;
};

class AdminClient {
 public:
  explicit AdminClient(std::shared_ptr<CacheChannel> channel);

  absl::StatusOr<ServiceStats> Stats();
  // How many of the keys were there.
  absl::StatusOr<int64_t> Remove(absl::Span<const Digest> keys);

 private:
  std::shared_ptr<CacheChannel> channel_;
};

}  // namespace turbokv
