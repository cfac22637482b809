#include "client/server_description.h"

#include "client/wire/call_context.h"
#include "turbokv/v1/admin.grpc.pb.h"

namespace turbokv {

absl::StatusOr<ServerDescription> DescribeServer(const CacheChannel& channel,
                                                 absl::Duration timeout) {
  const auto stub = v1::AdminService::NewStub(channel.grpc_channel());
  grpc::ClientContext context;
  PrepareCall(channel, timeout, &context);
  v1::DescribeResponse response;
  const grpc::Status status = stub->Describe(&context, {}, &response);
  if (!status.ok()) return CallStatus(channel, "describe", status);
  if (response.pools().empty()) {
    return absl::InternalError("describe: the server claims to have no pools");
  }
  ServerDescription description{
      response.version(), response.host_id(), response.share_socket(), {}};
  for (const v1::PoolDescription& pool : response.pools()) {
    PoolInfo& info = description.pools.emplace_back();
    info.budget_bytes = pool.budget_bytes();
    info.slabs = {pool.slab_bytes(), pool.slab_count()};
    info.shareable = pool.shareable();
    info.healthy = pool.healthy();
    info.device_uuid = pool.device_uuid();
    info.device_name = pool.device_name();
    info.device_index = pool.device_index();
  }
  return description;
}

}  // namespace turbokv
