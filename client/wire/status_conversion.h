// From the statuses of gRPC to ours.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grpcpp/support/status.h"

namespace turbokv {

// The server's code and message, preceded by what was attempted: "lookup at HOST:PORT: ...".
absl::Status FromGrpcStatus(const grpc::Status& status, absl::string_view attempted);

}  // namespace turbokv
