#include "kernels/format/page_header.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/format/crc32c.h"
#include "kernels/format/exponent.h"

namespace turbokv {
namespace {

static_assert(std::endian::native == std::endian::little, "page headers are copied as they are");
static_assert(std::is_trivially_copyable_v<PageHeader>);

constexpr uint16_t kKnownFlags = kPageHasKMean | kPageKMeanBeforeRope | kPageHasWidths;

template <typename T>
absl::Status OutOfRange(absl::string_view field, T value, int64_t min, int64_t max) {
  return absl::InvalidArgumentError(
      absl::StrCat("page header: ", field, " ", value, " is not in ", min, "..", max));
}

absl::Status NotInVersion1(absl::string_view field, uint64_t value) {
  return absl::UnimplementedError(
      absl::StrCat("page header: ", field, " ", value, " is not known to format version 1"));
}

absl::Status CheckVersion(const PageHeader& header) {
  if (header.magic != kPageMagic) {
    return absl::InvalidArgumentError(absl::StrCat("page header: magic 0x", absl::Hex(header.magic),
                                                   " is not 0x", absl::Hex(kPageMagic)));
  }
  if (header.format_version == 0) {
    return absl::InvalidArgumentError("page header: format_version 0 does not exist");
  }
  if (header.format_version > kPageFormatVersion) {
    return absl::UnimplementedError(absl::StrCat("page header: format_version ",
                                                 header.format_version, " is newer than ",
                                                 kPageFormatVersion));
  }
  if (header.header_bytes != kPageHeaderBytes) {
    return OutOfRange("header_bytes", header.header_bytes, kPageHeaderBytes, kPageHeaderBytes);
  }
  return absl::OkStatus();
}

absl::StatusOr<Codec> ParseCodec(absl::string_view field, uint8_t id) {
  if (id == 0)
    return absl::InvalidArgumentError(absl::StrCat("page header: ", field, " 0 is none"));
  const absl::StatusOr<Codec> codec = CodecFromId(id);
  if (!codec.ok()) return NotInVersion1(field, id);
  return codec;
}

// What version 1 has names for, and nothing behind them.
absl::Status CheckReserved(const PageHeader& header) {
  if ((header.flags & ~kKnownFlags) != 0) return NotInVersion1("flags", header.flags);
  if (header.flags & kPageKMeanBeforeRope) {
    return absl::UnimplementedError("page header: K means before RoPE are not implemented yet");
  }
  if (header.flags & kPageHasWidths || header.widths_offset_bytes != 0 ||
      header.widths_bytes != 0) {
    return absl::UnimplementedError("page header: a table of code widths is not implemented yet");
  }
  if (header.k_basis_crc != 0) return NotInVersion1("k_basis_crc", header.k_basis_crc);
  if (header.v_basis_crc != 0) return NotInVersion1("v_basis_crc", header.v_basis_crc);
  if (header.k_codebook_crc != 0) return NotInVersion1("k_codebook_crc", header.k_codebook_crc);
  if (header.v_codebook_crc != 0) return NotInVersion1("v_codebook_crc", header.v_codebook_crc);
  if (header.reserved0 != 0) return NotInVersion1("reserved0", header.reserved0);
  const uint8_t* nonzero = std::find_if(std::begin(header.reserved1), std::end(header.reserved1),
                                        [](uint8_t byte) { return byte != 0; });
  if (nonzero != std::end(header.reserved1)) return NotInVersion1("reserved1", *nonzero);
  return absl::OkStatus();
}

absl::Status CheckExponent(absl::string_view field, Codec codec, int exponent) {
  const bool scaled = codec != Codec::kBf16 && codec != Codec::kFp8E4m3;
  const int limit = scaled ? kMaxPageExponent : 0;
  if (exponent < -limit || exponent > limit) return OutOfRange(field, exponent, -limit, limit);
  return absl::OkStatus();
}

absl::StatusOr<PageLayout> LayoutOf(const PageHeader& header) {
  TURBOKV_ASSIGN_OR_RETURN(const Codec k_codec, ParseCodec("k_codec", header.k_codec));
  TURBOKV_ASSIGN_OR_RETURN(const Codec v_codec, ParseCodec("v_codec", header.v_codec));
  TURBOKV_RETURN_IF_ERROR(CheckExponent("k_exponent", k_codec, header.k_exponent));
  TURBOKV_RETURN_IF_ERROR(CheckExponent("v_exponent", v_codec, header.v_exponent));
  return PageLayout::For(
      {header.kv_heads, header.head_dim, k_codec, v_codec, (header.flags & kPageHasKMean) != 0});
}

uint32_t ChecksumOf(absl::Span<const uint8_t> page) {
  constexpr size_t kBegin = offsetof(PageHeader, checksum);
  constexpr uint8_t kZero[sizeof(PageHeader::checksum)] = {};
  uint32_t crc = Crc32c(page.subspan(0, kBegin));
  crc = ExtendCrc32c(crc, kZero);
  return ExtendCrc32c(crc, page.subspan(kBegin + sizeof(kZero)));
}

}  // namespace

void SealPage(const PageLayout& layout, const PageIdentity& identity, int tokens, int k_exponent,
              int v_exponent, absl::Span<uint8_t> page) {
  PageHeader header;
  header.page_bytes = static_cast<uint32_t>(layout.page_bytes);
  header.k_codec = static_cast<uint8_t>(layout.shape.k_codec);
  header.v_codec = static_cast<uint8_t>(layout.shape.v_codec);
  header.flags = layout.shape.k_mean ? kPageHasKMean : 0;
  header.tokens = static_cast<uint16_t>(tokens);
  header.kv_heads = static_cast<uint16_t>(layout.shape.kv_heads);
  header.head_dim = static_cast<uint16_t>(layout.shape.head_dim);
  header.k_exponent = static_cast<int16_t>(k_exponent);
  header.v_exponent = static_cast<int16_t>(v_exponent);
  header.layer = identity.layer;
  header.generation = identity.generation;
  header.first_token = identity.first_token;
  header.spec_id = identity.spec_id;
  std::memcpy(page.data(), &header, sizeof(header));
  header.checksum = ChecksumOf(page);
  std::memcpy(page.data(), &header, sizeof(header));
}

absl::StatusOr<PageView> ParsePage(absl::Span<const uint8_t> bytes) {
  if (bytes.size() < kPageHeaderBytes) {
    return absl::DataLossError(
        absl::StrCat("page has ", bytes.size(), " bytes; its header alone has ", kPageHeaderBytes));
  }
  PageView page;
  std::memcpy(&page.header, bytes.data(), sizeof(page.header));
  const PageHeader& header = page.header;
  TURBOKV_RETURN_IF_ERROR(CheckVersion(header));
  TURBOKV_RETURN_IF_ERROR(CheckReserved(header));
  TURBOKV_ASSIGN_OR_RETURN(page.layout, LayoutOf(header));
  if (header.tokens < 1 || header.tokens > kPageTokens) {
    return OutOfRange("tokens", header.tokens, 1, kPageTokens);
  }
  if (header.page_bytes != page.layout.page_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("page header: page_bytes ", header.page_bytes,
                                                   " is not the ", page.layout.page_bytes,
                                                   " of its shape"));
  }
  if (bytes.size() < page.layout.page_bytes) {
    return absl::DataLossError(absl::StrCat("page is cut short: ", bytes.size(), " of ",
                                            page.layout.page_bytes, " bytes"));
  }
  page.bytes = bytes.subspan(0, page.layout.page_bytes);
  return page;
}

absl::Status VerifyChecksum(const PageView& page) {
  const uint32_t computed = ChecksumOf(page.bytes);
  if (computed == page.header.checksum) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("page of layer ", page.header.layer, ", token ", page.header.first_token,
                   ": checksum 0x", absl::Hex(computed, absl::kZeroPad8), " is not the stored 0x",
                   absl::Hex(page.header.checksum, absl::kZeroPad8)));
}

}  // namespace turbokv
