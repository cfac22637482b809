// From our statuses to those of gRPC: the only place.
#pragma once

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace turbokv {

// Code for code; the message unchanged.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace turbokv
