// A process that was given a slab.
#pragma once

#include <string>

namespace turbokv::testing {

// Exit codes of the reading process: this, plus the value; anything else is a failure. Values of
// slabs are below 100, and -1 stands for bytes that differ or cannot be read.
inline constexpr int kSlabReaderFirstExitCode = 100;

// `slab`: "KIND FD BYTES".
int ValueInSlab(const std::string& slab);

}  // namespace turbokv::testing
