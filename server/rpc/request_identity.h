// Who calls, from request metadata.
#pragma once

#include "absl/status/statusor.h"
#include "grpcpp/server_context.h"
#include "server/index/block_cache.h"

namespace turbokv {

// `turbokv-tenant: TENANT` or `TENANT/CLIENT`; without it both are "default". INVALID_ARGUMENT for
// malformed names, and for more than one value.
absl::StatusOr<ClientIdentity> IdentityOf(const grpc::CallbackServerContext& context);

}  // namespace turbokv
