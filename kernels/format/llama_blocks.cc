#include "kernels/format/llama_blocks.h"

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/format/small_floats.h"

namespace turbokv {
namespace {

constexpr int kBlockChannels = 128;
constexpr size_t kNormBytes = 2;

// Codes of a block after the norm: the low bits of all values, LSB first, then (turbo3) a third bit
// each.
int LowBits(Codec codec) { return codec == Codec::kTurbo4 ? 4 : 2; }

void PutBlockCode(Codec codec, int channel, uint32_t code, uint8_t* block) {
  const int low_bits = LowBits(codec);
  const int per_byte = 8 / low_bits;
  const uint32_t low = code & ((1u << low_bits) - 1);
  block[kNormBytes + channel / per_byte] |= low << (channel % per_byte * low_bits);
  if (codec != Codec::kTurbo3) return;
  uint8_t* signs = block + kNormBytes + kBlockChannels / per_byte;
  signs[channel / 8] |= (code >> 2) << (channel % 8);
}

uint32_t GetBlockCode(Codec codec, int channel, const uint8_t* block) {
  const int low_bits = LowBits(codec);
  const int per_byte = 8 / low_bits;
  const uint32_t low = (block[kNormBytes + channel / per_byte] >> (channel % per_byte * low_bits)) &
                       ((1u << low_bits) - 1);
  if (codec != Codec::kTurbo3) return low;
  const uint8_t* signs = block + kNormBytes + kBlockChannels / per_byte;
  return low | ((signs[channel / 8] >> (channel % 8)) & 1u) << 2;
}

absl::Status CheckConvertible(const PageLayout& layout, PageTensor tensor, Codec codec, int tokens,
                              size_t blocks_bytes) {
  TURBOKV_ASSIGN_OR_RETURN(const size_t block_bytes, LlamaBlockBytes(codec));
  if (layout.shape.head_dim % kBlockChannels != 0) {
    return absl::InvalidArgumentError(absl::StrCat("head_dim ", layout.shape.head_dim,
                                                   " is not a multiple of ", kBlockChannels,
                                                   ", as llama.cpp blocks need"));
  }
  if (tensor == PageTensor::kK && layout.shape.k_mean) {
    return absl::InvalidArgumentError(
        "the page has a K mean, which llama.cpp blocks have no place for; store it with kmean=off");
  }
  if (tokens < 1 || tokens > kPageTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens ", tokens, " is not in 1..", kPageTokens));
  }
  const size_t expected = block_bytes * tokens * (layout.shape.head_dim / kBlockChannels);
  if (blocks_bytes != expected) {
    return absl::InvalidArgumentError(absl::StrCat("blocks have ", blocks_bytes, " bytes; ", tokens,
                                                   " tokens of ", CodecName(codec), " take ",
                                                   expected));
  }
  return absl::OkStatus();
}

// The scale without the page's exponent, or INVALID_ARGUMENT where fp16 cannot hold it exactly.
absl::StatusOr<uint16_t> WithoutExponent(uint16_t scale, int exponent) {
  const double value = std::ldexp(Fp16ToFloat(scale), exponent);
  const uint16_t bits = DoubleToFp16(value);
  if (double{Fp16ToFloat(bits)} == value) return bits;
  return absl::InvalidArgumentError(
      absl::StrCat("a norm of ", value, " (page exponent ", exponent,
                   ") is out of the range of the fp16 norm of llama.cpp blocks"));
}

}  // namespace

absl::StatusOr<size_t> LlamaBlockBytes(Codec codec) {
  switch (codec) {
    case Codec::kTurbo2:
      return 34;
    case Codec::kTurbo3:
      return 50;
    case Codec::kTurbo4:
      return 66;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "codec ", CodecName(codec), " has no llama.cpp block; turbo2, turbo3 and turbo4 have"));
  }
}

absl::Status PageToLlamaBlocks(const PageView& page, PageTensor tensor, int kv_head,
                               absl::Span<uint8_t> blocks) {
  if (kv_head < 0 || kv_head >= page.layout.shape.kv_heads) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv_head ", kv_head, " is not in 0..", page.layout.shape.kv_heads - 1));
  }
  const TensorSections<const uint8_t> sections(page.layout, tensor, page.Slice(kv_head));
  TURBOKV_RETURN_IF_ERROR(
      CheckConvertible(page.layout, tensor, sections.codec, page.header.tokens, blocks.size()));
  TURBOKV_ASSIGN_OR_RETURN(const size_t block_bytes, LlamaBlockBytes(sections.codec));
  const int exponent = tensor == PageTensor::kK ? page.header.k_exponent : page.header.v_exponent;
  const int groups = page.layout.shape.head_dim / kBlockChannels;
  std::memset(blocks.data(), 0, blocks.size());
  uint8_t* block = blocks.data();
  for (int token = 0; token < page.header.tokens; ++token) {
    for (int group = 0; group < groups; ++group, block += block_bytes) {
      TURBOKV_ASSIGN_OR_RETURN(const uint16_t norm,
                               WithoutExponent(ReadScale(sections, group, token), exponent));
      std::memcpy(block, &norm, kNormBytes);
      for (int channel = 0; channel < kBlockChannels; ++channel) {
        const uint32_t code = ReadCode(sections, token, group * kBlockChannels + channel);
        PutBlockCode(sections.codec, channel, code, block);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status LlamaBlocksToSlice(const PageLayout& layout, PageTensor tensor, int tokens,
                                absl::Span<const uint8_t> blocks, absl::Span<uint8_t> slice) {
  if (slice.size() != layout.slice_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("slice has ", slice.size(), " bytes; its layout ", layout.slice_bytes));
  }
  const TensorSections<uint8_t> sections(layout, tensor, slice.data());
  TURBOKV_RETURN_IF_ERROR(CheckConvertible(layout, tensor, sections.codec, tokens, blocks.size()));
  TURBOKV_ASSIGN_OR_RETURN(const size_t block_bytes, LlamaBlockBytes(sections.codec));
  const int groups = layout.shape.head_dim / kBlockChannels;
  const uint8_t* block = blocks.data();
  for (int token = 0; token < tokens; ++token) {
    for (int group = 0; group < groups; ++group, block += block_bytes) {
      uint16_t norm;
      std::memcpy(&norm, block, kNormBytes);
      WriteScale(sections, group, token, norm);
      for (int channel = 0; channel < kBlockChannels; ++channel) {
        WriteCode(sections, token, group * kBlockChannels + channel,
                  GetBlockCode(sections.codec, channel, block));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace turbokv
