// What a server says of itself: where it holds pages and what of it can be shared.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/channel.h"
#include "client/share/shared_slab.h"

namespace turbokv {

struct PoolInfo {
  uint64_t budget_bytes = 0;
  SlabGeometry slabs;
  bool shareable = false;
  bool healthy = true;
  std::string device_uuid;  // empty: host memory
  std::string device_name;
  uint32_t device_index = 0;
};

struct ServerDescription {
  std::string version;
  std::string host_id;
  std::string share_socket;     // empty: nothing is shared
  std::vector<PoolInfo> pools;  // at least host memory
};

// UNIMPLEMENTED: a server from before there was a description. INTERNAL: one without pools.
absl::StatusOr<ServerDescription> DescribeServer(const CacheChannel& channel,
                                                 absl::Duration timeout);

}  // namespace turbokv
