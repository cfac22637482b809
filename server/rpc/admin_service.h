// The admin service: what the server holds and has done.
#pragma once

#include "server/rpc/service_state.h"
#include "turbokv/v1/admin.grpc.pb.h"

namespace turbokv {

class AdminServiceImpl final
    : public v1::AdminService::WithCallbackMethod_Stats<
          v1::AdminService::WithCallbackMethod_Describe<v1::AdminService::Service>> {
 public:
  explicit AdminServiceImpl(ServiceState* state) : state_(state) {}

  grpc::ServerUnaryReactor* Stats(grpc::CallbackServerContext* context,
                                  const v1::StatsRequest* request,
                                  v1::StatsResponse* response) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const v1::DescribeRequest* request,
                                     v1::DescribeResponse* response) override;

 private:
  ServiceState* const state_;
};

}  // namespace turbokv
