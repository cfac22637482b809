#include "server/rpc/request_identity.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/wire/identity.h"

namespace turbokv {

absl::StatusOr<ClientIdentity> IdentityOf(const grpc::CallbackServerContext& context) {
  ClientIdentity identity;
  const auto [begin, end] = context.client_metadata().equal_range(kTenantMetadataKey);
  if (begin == end) return identity;
  if (std::next(begin) != end) {
    return absl::InvalidArgumentError(
        absl::StrCat("metadata ", kTenantMetadataKey, " is given more than once"));
  }
  const absl::string_view value(begin->second.data(), begin->second.size());
  const size_t slash = value.find('/');
  identity.tenant = std::string(value.substr(0, slash));
  if (slash != absl::string_view::npos) identity.client = std::string(value.substr(slash + 1));
  TURBOKV_RETURN_IF_ERROR(
      CheckIdentityName(absl::StrCat(kTenantMetadataKey, ": tenant"), identity.tenant));
  TURBOKV_RETURN_IF_ERROR(
      CheckIdentityName(absl::StrCat(kTenantMetadataKey, ": client"), identity.client));
  return identity;
}

}  // namespace turbokv
