#include "server/rpc/admin_service.h"

#include <string>

#include "base/host_id.h"
#include "kernels/format/codec.h"
#include "server/rpc/nccl_service.h"

namespace turbokv {
namespace {

void AddCodec(const Metrics& metrics, PageTensor tensor, Codec codec, v1::StatsResponse* response) {
  const CodecTotals totals = metrics.Totals(tensor, codec);
  if (totals.pages == 0 && totals.sampled_pages == 0) return;
  v1::CodecStats* stats = response->add_codecs();
  stats->set_tensor(tensor == PageTensor::kK ? "k" : "v");
  stats->set_codec(std::string(CodecName(codec)));
  stats->set_pages_total(totals.pages);
  stats->set_raw_bytes_total(totals.raw_bytes);
  stats->set_kept_bytes_total(totals.kept_bytes);
  stats->set_sampled_pages_total(totals.sampled_pages);
  if (totals.sampled_pages > 0) {
    stats->set_sampled_relative_mse(totals.relative_mse_sum /
                                    static_cast<double>(totals.sampled_pages));
  }
}

void DescribePool(ServiceState* state, PoolId pool, const PoolUsage& usage,
                  v1::PoolDescription* description) {
  const PoolGeometry geometry = state->cache().pool_geometry(pool);
  description->set_budget_bytes(usage.budget_bytes);
  description->set_slab_bytes(geometry.slab_bytes);
  description->set_slab_count(geometry.slab_count);
  description->set_shareable(!state->config().share_socket.empty());
  description->set_healthy(!usage.lost);
  if (pool == kHostPool) return;
  const DeviceInfo& device = state->devices()->device(pool)->device->info();
  description->set_device_uuid(device.uuid);
  description->set_device_name(device.name);
  description->set_device_index(device.index);
}

}  // namespace

grpc::ServerUnaryReactor* AdminServiceImpl::Describe(grpc::CallbackServerContext* context,
                                                     const v1::DescribeRequest*,
                                                     v1::DescribeResponse* response) {
  response->set_version(TURBOKV_VERSION);
  response->set_host_id(HostId());
  response->set_share_socket(state_->config().share_socket);
  const CacheUsage usage = state_->cache().Usage();
  for (size_t pool = 0; pool < usage.pools.size(); ++pool) {
    DescribePool(state_, static_cast<PoolId>(pool), usage.pools[pool], response->add_pools());
  }
  const NcclEnvironment& nccl = state_->nccl()->environment();
  if (nccl.available.ok()) {
    response->set_nccl_version(nccl.api->version_text());
  } else {
    response->set_nccl_unavailable(std::string(nccl.available.message()));
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(state_->End("Describe", absl::OkStatus(), context));
  return reactor;
}

grpc::ServerUnaryReactor* AdminServiceImpl::Stats(grpc::CallbackServerContext* context,
                                                  const v1::StatsRequest*,
                                                  v1::StatsResponse* response) {
  const CacheUsage usage = state_->cache().Usage();
  const Metrics& metrics = state_->metrics();
  response->set_version(TURBOKV_VERSION);
  response->set_uptime_ms(absl::ToInt64Milliseconds(state_->uptime()));
  response->set_draining(state_->draining());
  response->set_pool_budget_bytes(usage.budget_bytes);
  response->set_pool_used_bytes(usage.used_bytes);
  response->set_pool_reserved_bytes(usage.reserved_bytes);
  response->set_blocks(usage.blocks);
  response->set_tails(usage.tails);
  response->set_leases(usage.leases);
  response->set_leased_blocks(usage.leased_blocks);
  response->set_active_stores(metrics.active_stores());
  response->set_raw_bytes_total(metrics.raw_bytes());
  response->set_kept_bytes_total(metrics.kept_bytes());
  response->set_evicted_blocks_total(usage.evicted_blocks);
  response->set_hit_tokens_total(metrics.hit_tokens());
  response->set_missed_tokens_total(metrics.missed_tokens());
  for (const CodecTraits& traits : AllCodecs()) {
    AddCodec(metrics, PageTensor::kK, traits.codec, response);
    AddCodec(metrics, PageTensor::kV, traits.codec, response);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(state_->End("Stats", absl::OkStatus(), context));
  return reactor;
}

}  // namespace turbokv
