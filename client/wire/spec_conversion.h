// Cache specs to and from their message.
#pragma once

#include "absl/status/statusor.h"
#include "client/cache_spec.h"
#include "turbokv/v1/cache.pb.h"

namespace turbokv {

v1::CacheSpec ToProto(const CacheSpec& spec);

// Untrusted input. INVALID_ARGUMENT names the field, its value and the limit: numbers that do not
// fit an int, an unknown source_type, page_tokens or format_version that this build does not speak.
// Everything else is ResolveSpec's to check.
absl::StatusOr<CacheSpec> FromProto(const v1::CacheSpec& proto);

}  // namespace turbokv
