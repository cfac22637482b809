// Removal of a whole sequence.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/admin_client.h"
#include "client/cache_spec.h"

namespace turbokv::cli {

// Removes every block and the tail of `token_ids`; returns how many of them were there.
absl::StatusOr<int64_t> RemoveSequence(const ResolvedSpec& spec, const std::string& salt,
                                       absl::Span<const int32_t> token_ids, AdminClient* admin);

}  // namespace turbokv::cli
