#include "client/wire/call_context.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/wire/identity.h"

namespace turbokv {

void PrepareCall(const CacheChannel& channel, absl::Duration timeout,
                 grpc::ClientContext* context) {
  context->AddMetadata(kTenantMetadataKey, channel.identity());
  if (timeout != absl::InfiniteDuration()) {
    context->set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  }
}

absl::Status CallStatus(const CacheChannel& channel, absl::string_view call,
                        const grpc::Status& status) {
  return FromGrpcStatus(status, absl::StrCat(call, " at ", channel.options().address));
}

}  // namespace turbokv
