// Where test data lies: TURBOKV_SOURCE_DIR in the environment on machines that got only the binary.
#pragma once

#include <cstdlib>
#include <string>

namespace turbokv::cuda::testing {

inline std::string SourcePath(const std::string& relative) {
  const char* const directory = std::getenv("TURBOKV_SOURCE_DIR");
  return std::string(directory != nullptr ? directory : TURBOKV_SOURCE_DIR) + "/" + relative;
}

}  // namespace turbokv::cuda::testing
