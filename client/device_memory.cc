#include "client/device_memory.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/host_id.h"
#include "base/status_macros.h"
#include "client/server_description.h"

namespace turbokv {
namespace {

absl::StatusOr<uint32_t> FindPool(const ServerDescription& server, const std::string& device_uuid) {
  std::vector<std::string> uuids;
  for (uint32_t pool = 0; pool < server.pools.size(); ++pool) {
    const std::string& uuid = server.pools[pool].device_uuid;
    if (uuid.empty()) continue;  // host memory
    if (uuid == device_uuid) return pool;
    uuids.push_back(uuid);
  }
  return absl::NotFoundError(absl::StrCat("device_uuid is '", device_uuid,
                                          "'; the service holds pages in the memory of ",
                                          uuids.empty() ? "no GPU" : absl::StrJoin(uuids, ", ")));
}

absl::Status CheckShared(const ServerDescription& server, const PoolInfo& pool) {
  const std::string host_id = HostId();
  if (host_id.empty() || server.host_id != host_id) {
    return absl::FailedPreconditionError("the server runs on another host");
  }
  if (server.share_socket.empty() || !pool.shareable) {
    return absl::FailedPreconditionError(absl::StrCat("the server does not share the memory of ",
                                                      pool.device_uuid,
                                                      " (its setting share_socket)"));
  }
  if (!pool.healthy) {
    return absl::FailedPreconditionError(
        absl::StrCat(pool.device_uuid, " has failed: the server keeps nothing there any more"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<DeviceMemory>> DeviceMemory::Open(
    const CacheChannel& channel, const std::string& device_uuid,
    const SlabImporterFactory& make_importer) {
  const ChannelOptions& options = channel.options();
  TURBOKV_ASSIGN_OR_RETURN(const ServerDescription server,
                           DescribeServer(channel, options.connect_timeout));
  TURBOKV_ASSIGN_OR_RETURN(const uint32_t number, FindPool(server, device_uuid));
  const PoolInfo& pool = server.pools[number];
  TURBOKV_RETURN_IF_ERROR(CheckShared(server, pool));
  ShareSessionOptions session_options;
  session_options.path = options.share_socket.empty() ? server.share_socket : options.share_socket;
  session_options.identity = {options.tenant, options.client_id};
  TURBOKV_ASSIGN_OR_RETURN(std::shared_ptr<ShareSession> session,
                           ShareSession::Connect(session_options));
  TURBOKV_RETURN_IF_ERROR(CheckSlabGeometry(pool.slabs));  // before an importer relies on it
  TURBOKV_ASSIGN_OR_RETURN(std::unique_ptr<SlabImporter> importer, make_importer(pool.slabs));
  TURBOKV_ASSIGN_OR_RETURN(std::unique_ptr<MappedPool> mapped,
                           MappedPool::Create(session, number, pool.slabs, std::move(importer)));
  return absl::WrapUnique(new DeviceMemory(device_uuid, std::move(session), std::move(mapped)));
}

DeviceMemory::DeviceMemory(std::string device_uuid, std::shared_ptr<ShareSession> session,
                           std::unique_ptr<MappedPool> pool)
    : device_uuid_(std::move(device_uuid)), session_(std::move(session)), pool_(std::move(pool)) {}

}  // namespace turbokv
