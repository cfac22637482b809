#include "client/admin_client.h"

#include <utility>

#include "client/wire/call_context.h"
#include "turbokv/v1/admin.grpc.pb.h"
#include "turbokv/v1/cache.grpc.pb.h"

namespace turbokv {
namespace {

constexpr absl::Duration kAdminTimeout = absl::Seconds(30);

ServiceStats FromProto(const v1::StatsResponse& response) {
  ServiceStats stats;
  stats.version = response.version();
  stats.uptime_ms = response.uptime_ms();
  stats.draining = response.draining();
  stats.pool_budget_bytes = response.pool_budget_bytes();
  stats.pool_used_bytes = response.pool_used_bytes();
  stats.pool_reserved_bytes = response.pool_reserved_bytes();
  stats.blocks = response.blocks();
  stats.tails = response.tails();
  stats.leases = response.leases();
  stats.leased_blocks = response.leased_blocks();
  stats.active_stores = response.active_stores();
  stats.raw_bytes = response.raw_bytes_total();
  stats.kept_bytes = response.kept_bytes_total();
  stats.evicted_blocks = response.evicted_blocks_total();
  stats.hit_tokens = response.hit_tokens_total();
  stats.missed_tokens = response.missed_tokens_total();
  for (const v1::CodecStats& codec : response.codecs()) {
    CodecStats& out = stats.codecs.emplace_back();
    out.tensor = codec.tensor();
    out.codec = codec.codec();
    out.pages = codec.pages_total();
    out.raw_bytes = codec.raw_bytes_total();
    out.kept_bytes = codec.kept_bytes_total();
    out.sampled_pages = codec.sampled_pages_total();
    out.sampled_relative_mse = codec.sampled_relative_mse();
  }
  return stats;
}

}  // namespace

AdminClient::AdminClient(std::shared_ptr<CacheChannel> channel) : channel_(std::move(channel)) {}

absl::StatusOr<ServiceStats> AdminClient::Stats() {
  grpc::ClientContext context;
  PrepareCall(*channel_, kAdminTimeout, &context);
  v1::StatsResponse response;
  const grpc::Status status = v1::AdminService::NewStub(channel_->grpc_channel())
                                  ->Stats(&context, v1::StatsRequest(), &response);
  if (!status.ok()) return CallStatus(*channel_, "stats", status);
  return FromProto(response);
}

absl::StatusOr<int64_t> AdminClient::Remove(absl::Span<const Digest> keys) {
  grpc::ClientContext context;
  PrepareCall(*channel_, kAdminTimeout, &context);
  v1::RemoveRequest request;
  request.set_block_keys(keys.data(), keys.size() * sizeof(Digest));
  v1::RemoveResponse response;
  const grpc::Status status =
      v1::CacheService::NewStub(channel_->grpc_channel())->Remove(&context, request, &response);
  if (!status.ok()) return CallStatus(*channel_, "remove", status);
  return response.removed();
}

}  // namespace turbokv
