// CRC32C (Castagnoli), as in iSCSI and RocksDB, by ISA-L.
#pragma once

#include <cstdint>

#include "absl/types/span.h"

namespace turbokv {

// The checksum of `data` appended to data whose checksum is `crc` (0 for none).
uint32_t ExtendCrc32c(uint32_t crc, absl::Span<const uint8_t> data);

inline uint32_t Crc32c(absl::Span<const uint8_t> data) { return ExtendCrc32c(0, data); }

}  // namespace turbokv
