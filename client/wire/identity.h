// Names of tenants and clients, as they stand in the metadata key `turbokv-tenant`.
#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace turbokv {

inline constexpr char kTenantMetadataKey[] = "turbokv-tenant";
inline constexpr size_t kMaxIdentityNameBytes = 64;

// INVALID_ARGUMENT unless `name` is 1..64 characters of [A-Za-z0-9._-]; `what` is for the message.
absl::Status CheckIdentityName(absl::string_view what, absl::string_view name);

}  // namespace turbokv
