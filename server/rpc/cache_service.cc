#include "server/rpc/cache_service.h"

#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/wire/bulk_message.h"
#include "server/ingest/store_plan.h"
#include "server/rpc/fetch_reactor.h"
#include "server/rpc/nccl_fetch_reactor.h"
#include "server/rpc/request_identity.h"
#include "server/rpc/store_reactor.h"

namespace turbokv {
namespace {

absl::StatusOr<Digest> ToDigest(absl::string_view field, absl::string_view bytes) {
  Digest digest;
  if (bytes.size() != digest.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the length of ", field, " is ", bytes.size(), "; expected ", digest.size()));
  }
  std::memcpy(digest.data(), bytes.data(), digest.size());
  return digest;
}

// Where the blocks of a lookup are to lie. NOT_FOUND: the service has no such device.
absl::StatusOr<std::optional<PoolId>> WantedPool(ServiceState* state,
                                                 const v1::LookupRequest& request) {
  switch (request.memory()) {
    case v1::MEMORY_KIND_ANY:
      return std::optional<PoolId>();
    case v1::MEMORY_KIND_HOST:
      return std::optional<PoolId>(kHostPool);
    case v1::MEMORY_KIND_DEVICE:
      break;
    default:
      return absl::InvalidArgumentError(absl::StrCat("memory is ",
                                                     static_cast<int>(request.memory()),
                                                     "; expected 0 (any), 1 (host) or 2 (device)"));
  }
  std::optional<PoolId> pool;
  if (state->devices() != nullptr) pool = state->devices()->PoolOf(request.device_uuid());
  if (!pool) {
    return absl::NotFoundError(
        absl::StrCat("device_uuid is '", absl::CEscape(request.device_uuid()),
                     "'; the service holds no pages in memory of such a device"));
  }
  return pool;
}

MetricRoad RoadOf(const v1::LookupRequest& request) {
  if (request.share_session() == 0) return MetricRoad::kGrpc;
  return request.memory() == v1::MEMORY_KIND_DEVICE ? MetricRoad::kCuda : MetricRoad::kShm;
}

void AddPlace(const EntryRef& entry, v1::Places* places) {
  const Place place = entry.place();
  places->add_pools(place.pool);
  places->add_offsets(place.offset_bytes);
  places->add_generations(place.generation);
}

// Ties the lease to the session, and tells where its entries lie.
absl::Status Share(ServiceState* state, const ClientIdentity& owner, uint64_t session_id,
                   uint64_t lease_id, v1::LookupResponse* response) {
  const absl::Status added = state->share_host()->AddLease(session_id, owner, lease_id);
  if (!added.ok()) {
    state->cache().Release(owner, lease_id).IgnoreError();
    return added;
  }
  TURBOKV_ASSIGN_OR_RETURN(const std::shared_ptr<const LeaseInfo> lease,
                           state->cache().FindLease(owner, lease_id));
  for (const EntryRef& block : lease->blocks) AddPlace(block, response->mutable_places());
  if (lease->tail) AddPlace(lease->tail, response->mutable_places());
  return absl::OkStatus();
}

absl::Status CheckShareSession(ServiceState* state, uint64_t session_id,
                               const ClientIdentity& owner) {
  if (session_id == 0) return absl::OkStatus();
  if (state->share_host() == nullptr) {
    return absl::FailedPreconditionError("share_session is set; the service shares no memory");
  }
  return state->share_host()->CheckSession(session_id, owner);
}

absl::Status DoLookup(ServiceState* state, const grpc::CallbackServerContext& context,
                      const v1::LookupRequest& request, v1::LookupResponse* response) {
  TURBOKV_RETURN_IF_ERROR(state->CheckServing());
  TURBOKV_ASSIGN_OR_RETURN(const ClientIdentity owner, IdentityOf(context));
  TURBOKV_ASSIGN_OR_RETURN(const Digest fingerprint,
                           ToDigest("spec_fingerprint", request.spec_fingerprint()));
  TURBOKV_ASSIGN_OR_RETURN(const std::vector<Digest> keys,
                           SplitKeys("block_keys", request.block_keys()));
  std::optional<Digest> tail_key;
  if (!request.tail_key().empty()) {
    TURBOKV_ASSIGN_OR_RETURN(tail_key, ToDigest("tail_key", request.tail_key()));
  }
  TURBOKV_ASSIGN_OR_RETURN(const std::optional<PoolId> move_to, WantedPool(state, request));
  TURBOKV_RETURN_IF_ERROR(CheckShareSession(state, request.share_session(), owner));
  TURBOKV_ASSIGN_OR_RETURN(
      const LookupOutcome outcome,
      state->cache().Lookup(owner, fingerprint, keys, tail_key ? &*tail_key : nullptr,
                            absl::Milliseconds(request.lease_ms()), move_to));
  state->metrics().CountRoad(RoadCall::kLookup, RoadOf(request));
  response->set_matched_blocks(outcome.matched_blocks);
  response->set_tail_found(outcome.tail_found);
  response->set_tail_tokens(outcome.tail_tokens);
  response->set_lease_id(outcome.lease_id);
  response->set_lease_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(outcome.lease)));
  response->set_layers(outcome.layers);
  if (request.share_session() == 0 || outcome.lease_id == 0) return absl::OkStatus();
  return Share(state, owner, request.share_session(), outcome.lease_id, response);
}

absl::Status DoRenew(ServiceState* state, const grpc::CallbackServerContext& context,
                     const v1::RenewRequest& request, v1::RenewResponse* response) {
  TURBOKV_ASSIGN_OR_RETURN(const ClientIdentity owner, IdentityOf(context));
  TURBOKV_ASSIGN_OR_RETURN(
      const absl::Duration lease,
      state->cache().Renew(owner, request.lease_id(), absl::Milliseconds(request.lease_ms())));
  response->set_lease_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(lease)));
  return absl::OkStatus();
}

absl::Status DoRelease(ServiceState* state, const grpc::CallbackServerContext& context,
                       const v1::ReleaseRequest& request) {
  TURBOKV_ASSIGN_OR_RETURN(const ClientIdentity owner, IdentityOf(context));
  return state->cache().Release(owner, request.lease_id());
}

absl::Status DoRemove(ServiceState* state, const grpc::CallbackServerContext& context,
                      const v1::RemoveRequest& request, v1::RemoveResponse* response) {
  TURBOKV_ASSIGN_OR_RETURN(const ClientIdentity owner, IdentityOf(context));
  TURBOKV_ASSIGN_OR_RETURN(const std::vector<Digest> keys,
                           SplitKeys("block_keys", request.block_keys()));
  response->set_removed(state->cache().Remove(owner, keys));
  return absl::OkStatus();
}

}  // namespace

grpc::ServerReadReactor<grpc::ByteBuffer>* CacheServiceImpl::Store(
    grpc::CallbackServerContext* context, grpc::ByteBuffer* response) {
  return new StoreReactor(state_, context, response);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* CacheServiceImpl::Fetch(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  v1::FetchRequest fields;  // a malformed one is FetchReactor's to refuse
  if (ParseBulkMessage(*request, &fields).ok() && fields.has_nccl()) {
    return new NcclFetchReactor(state_, context, std::move(fields));
  }
  return new FetchReactor(state_, context, request);
}

grpc::ServerUnaryReactor* CacheServiceImpl::Lookup(grpc::CallbackServerContext* context,
                                                   const v1::LookupRequest* request,
                                                   v1::LookupResponse* response) {
  const absl::Time start = absl::Now();
  const absl::Status status = DoLookup(state_, *context, *request, response);
  if (status.ok()) state_->metrics().ObserveLatency(Latency::kLookup, absl::Now() - start);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(state_->End("Lookup", status, context));
  return reactor;
}

grpc::ServerUnaryReactor* CacheServiceImpl::Renew(grpc::CallbackServerContext* context,
                                                  const v1::RenewRequest* request,
                                                  v1::RenewResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(state_->End("Renew", DoRenew(state_, *context, *request, response), context));
  return reactor;
}

grpc::ServerUnaryReactor* CacheServiceImpl::Release(grpc::CallbackServerContext* context,
                                                    const v1::ReleaseRequest* request,
                                                    v1::ReleaseResponse*) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(state_->End("Release", DoRelease(state_, *context, *request), context));
  return reactor;
}

grpc::ServerUnaryReactor* CacheServiceImpl::Remove(grpc::CallbackServerContext* context,
                                                   const v1::RemoveRequest* request,
                                                   v1::RemoveResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(state_->End("Remove", DoRemove(state_, *context, *request, response), context));
  return reactor;
}

}  // namespace turbokv
