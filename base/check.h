// Ends the process when the program is wrong; never for what a client or the system may cause.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace turbokv {

// `what` says what must hold.
inline void Check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "check failed: %s\n", what);
  std::abort();
}

}  // namespace turbokv
