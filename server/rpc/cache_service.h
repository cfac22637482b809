// The cache service: what proto/turbokv/v1/cache.proto says, on gRPC's callback API.
#pragma once

#include "server/rpc/service_state.h"
#include "turbokv/v1/cache.grpc.pb.h"

namespace turbokv {

// The bulk methods are raw: their messages are handled as bytes (client/wire/bulk_message.h).
using CacheServiceMethods = v1::CacheService::WithRawCallbackMethod_Store<
    v1::CacheService::WithRawCallbackMethod_Fetch<v1::CacheService::WithCallbackMethod_Lookup<
        v1::CacheService::WithCallbackMethod_Renew<v1::CacheService::WithCallbackMethod_Release<
            v1::CacheService::WithCallbackMethod_Remove<v1::CacheService::Service>>>>>>;

class CacheServiceImpl final : public CacheServiceMethods {
 public:
  explicit CacheServiceImpl(ServiceState* state) : state_(state) {}

  grpc::ServerReadReactor<grpc::ByteBuffer>* Store(grpc::CallbackServerContext* context,
                                                   grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Fetch(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Lookup(grpc::CallbackServerContext* context,
                                   const v1::LookupRequest* request,
                                   v1::LookupResponse* response) override;
  grpc::ServerUnaryReactor* Renew(grpc::CallbackServerContext* context,
                                  const v1::RenewRequest* request,
                                  v1::RenewResponse* response) override;
  grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context,
                                    const v1::ReleaseRequest* request,
                                    v1::ReleaseResponse* response) override;
  grpc::ServerUnaryReactor* Remove(grpc::CallbackServerContext* context,
                                   const v1::RemoveRequest* request,
                                   v1::RemoveResponse* response) override;

 private:
  ServiceState* const state_;
};

}  // namespace turbokv
