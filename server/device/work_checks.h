// What every device refuses before it enqueues work, alike for the real one and the fake.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/device/device.h"

namespace turbokv {

// Pages of one call lie within this many bytes: kernels number them by 128 bytes in 31 bits.
inline constexpr size_t kMaxPageSpanBytes = size_t{128} << 31;

// INVALID_ARGUMENT, UNIMPLEMENTED: `shape` is none, or has a head_dim without GPU kernels.
absl::Status CheckDeviceShape(const PageShape& shape);

// INVALID_ARGUMENT names the page whose address is not a multiple of 128 (null included, unless
// `may_be_null`).
absl::Status CheckDevicePages(absl::Span<const uint8_t* const> device_pages, bool may_be_null);

absl::Status CheckDeviceEncode(const DeviceEncode& work);

// INVALID_ARGUMENT names the copy that is not aligned.
absl::Status CheckDeviceCopies(absl::Span<const DeviceCopy> copies);

// INVALID_ARGUMENT unless slabs are a multiple of the granularity, and at least one fits.
absl::Status CheckDeviceArenaSizes(size_t budget_bytes, size_t slab_bytes,
                                   size_t granularity_bytes);

}  // namespace turbokv
