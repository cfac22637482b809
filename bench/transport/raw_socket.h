// What the kernel alone can do: blocking sockets on loopback, one sender, one receiver.
#pragma once

#include <cstddef>

namespace turbokv::bench {

// Sends `total_bytes` in chunks and receives them into one buffer; seconds from the first send to
// the last byte received. Exits with a message when the machine has no loopback.
double RawSocketSeconds(size_t total_bytes, size_t chunk_bytes);

}  // namespace turbokv::bench
