// Mapping memory of another process without letting that process hurt this one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace turbokv {

// Whether `fd` can be mapped: memory of exactly `bytes` bytes that nobody can resize any more, so
// that no access to a mapping of it raises SIGBUS. INVALID_ARGUMENT names `what`, and what the
// descriptor is instead.
absl::Status CheckSealedMemory(absl::string_view what, int fd, uint64_t bytes);

}  // namespace turbokv
