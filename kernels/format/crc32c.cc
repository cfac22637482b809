#include "kernels/format/crc32c.h"

#include <isa-l/crc.h>

namespace turbokv {

uint32_t ExtendCrc32c(uint32_t crc, absl::Span<const uint8_t> data) {
  constexpr size_t kMaxCallBytes = size_t{1} << 30;  // ISA-L takes an int
  uint32_t state = ~crc;
  while (!data.empty()) {
    const absl::Span<const uint8_t> part = data.subspan(0, kMaxCallBytes);
    // ISA-L does not write; its prototype lacks the const.
    state = crc32_iscsi(const_cast<uint8_t*>(part.data()), static_cast<int>(part.size()), state);
    data.remove_prefix(part.size());
  }
  return ~state;
}

}  // namespace turbokv
