// What every call of a channel carries.
#pragma once

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/channel.h"
#include "client/wire/status_conversion.h"
#include "grpcpp/channel.h"  // channel.h of ours only declares grpc::Channel
#include "grpcpp/client_context.h"

namespace turbokv {

// Adds the caller's identity and, unless `timeout` is infinite, a deadline.
void PrepareCall(const CacheChannel& channel, absl::Duration timeout, grpc::ClientContext* context);

// FromGrpcStatus with "`call` at ADDRESS" as what was attempted.
absl::Status CallStatus(const CacheChannel& channel, absl::string_view call,
                        const grpc::Status& status);

}  // namespace turbokv
