// The first 128 bytes of a page: what it is, for whom, and its checksum.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/format/page_layout.h"

namespace turbokv {

inline constexpr uint32_t kPageMagic = 0x50564b54;  // "TKVP" in memory
inline constexpr uint16_t kPageFormatVersion = 1;

enum PageFlags : uint16_t {
  kPageHasKMean = 1 << 0,
  // Reserved for later formats; a reader that does not know a flag refuses the page.
  kPageKMeanBeforeRope = 1 << 1,
  kPageHasWidths = 1 << 2,
};

// In memory exactly as on the wire and on disk: little-endian, no padding.
struct PageHeader {
  uint32_t magic = kPageMagic;
  uint16_t format_version = kPageFormatVersion;
  uint16_t header_bytes = kPageHeaderBytes;
  uint32_t page_bytes = 0;
  uint32_t checksum = 0;  // CRC32C of the whole page with this field zero
  uint8_t k_codec = 0;
  uint8_t v_codec = 0;
  uint16_t flags = 0;
  uint16_t tokens = 0;  // 1..128
  uint16_t kv_heads = 0;
  uint16_t head_dim = 0;
  // Every fp16 number of K (V) in the page, K mean included, stands for itself x 2^exponent.
  // 0 unless the vectors' norms leave the range of fp16 (page_v1.md, "Exponents").
  int16_t k_exponent = 0;
  int16_t v_exponent = 0;
  uint16_t reserved0 = 0;
  uint32_t layer = 0;
  uint32_t generation = 0;   // raised when the page is recoded
  uint64_t first_token = 0;  // position of the page's first token in its sequence
  uint64_t spec_id = 0;      // first 8 bytes of the cache spec's fingerprint, little-endian
  // Reserved, zero in version 1: a calibrated basis instead of the Hadamard rotation, a trellis
  // codebook, and the table of code widths per head and 32-channel group.
  uint32_t k_basis_crc = 0;
  uint32_t v_basis_crc = 0;
  uint32_t k_codebook_crc = 0;
  uint32_t v_codebook_crc = 0;
  uint32_t widths_offset_bytes = 0;
  uint32_t widths_bytes = 0;
  uint8_t reserved1[48] = {};
};
static_assert(sizeof(PageHeader) == kPageHeaderBytes);
static_assert(offsetof(PageHeader, reserved1) + sizeof(PageHeader::reserved1) == kPageHeaderBytes,
              "nothing of the header is padding");

// What the writer of a page knows beside its values.
struct PageIdentity {
  uint32_t layer = 0;
  uint32_t generation = 0;
  uint64_t first_token = 0;
  uint64_t spec_id = 0;
};

// Writes header and checksum over the first bytes of `page`, whose slices are complete.
// Precondition: page.size() == layout.page_bytes, 1 <= tokens <= kPageTokens.
void SealPage(const PageLayout& layout, const PageIdentity& identity, int tokens, int k_exponent,
              int v_exponent, absl::Span<uint8_t> page);

// A page whose header is consistent with its size.
struct PageView {
  PageHeader header;
  PageLayout layout;
  absl::Span<const uint8_t> bytes;  // exactly layout.page_bytes

  const uint8_t* Slice(int kv_head) const { return bytes.data() + layout.SliceOffset(kv_head); }
};

// Checks everything but the checksum: magic, version, codecs, flags, reserved bytes, sizes.
// `bytes` may be longer than the page. Untrusted input: never reads past `bytes`.
// INVALID_ARGUMENT names the field, its value and the limit; UNIMPLEMENTED for a newer version,
// flag or codec; DATA_LOSS when `bytes` is shorter than the page.
absl::StatusOr<PageView> ParsePage(absl::Span<const uint8_t> bytes);

// DATA_LOSS when the stored checksum differs from the computed one.
absl::Status VerifyChecksum(const PageView& page);

}  // namespace turbokv
