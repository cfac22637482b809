// Tells whether two processes run on the same host.
#pragma once

#include <string>

namespace turbokv {

// The boot id of this host's kernel: the same in all containers of the host. Empty where the system
// does not tell.
std::string HostId();

}  // namespace turbokv
