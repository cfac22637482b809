// What a fuzz target promises beside not crashing.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace turbokv {

inline void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz target: this does not hold: %s\n", what);
  std::abort();
}

}  // namespace turbokv
