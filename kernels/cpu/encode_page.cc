#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/codec.h"
#include "kernels/cpu/encode_kernels.h"
#include "kernels/cpu/fast_fp16.h"
#include "kernels/format/exponent.h"
#include "kernels/format/tensor_sections.h"

namespace turbokv::cpu {
namespace {

// What encoding one head needs besides the page; too large for the stack, too often used to
// allocate.
struct Scratch {
  float values[kPageTokens * kMaxHeadDim];
  uint16_t codes[kPageTokens * kMaxHeadDim];  // or as many bytes
  double sums[kMaxHeadDim];
  double mean[kMaxHeadDim];
};

Scratch& ThreadScratch() {
  thread_local std::unique_ptr<Scratch> scratch = std::make_unique<Scratch>();
  return *scratch;
}

// K or V of the page to be.
struct Tensor {
  PageTensor tensor;
  Codec codec;
  int padded_dim;
  int exponent = 0;
};

HeadSource SourceOf(const PageLayout& layout, const KvView& kv, PageTensor tensor, int head) {
  const auto* data = static_cast<const char*>(tensor == PageTensor::kK ? kv.k : kv.v);
  return {data + head * kv.head_stride * static_cast<ptrdiff_t>(ValueBytes(kv.type)), kv.type,
          kv.token_stride, kv.tokens, layout.shape.head_dim};
}

HeadSource TokensOf(HeadSource source, int begin, int tokens) {
  source.data = static_cast<const char*>(source.data) +
                begin * source.token_stride * static_cast<ptrdiff_t>(ValueBytes(source.type));
  source.tokens = tokens;
  return source;
}

absl::Status ValidateArguments(const PageLayout& layout, const KvView& kv,
                               absl::Span<uint8_t> page) {
  if (kv.tokens < 1 || kv.tokens > kPageTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("a page takes 1..", kPageTokens, " tokens, not ", kv.tokens));
  }
  if (page.size() != layout.page_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the page buffer has ", page.size(), " bytes; the page ", layout.page_bytes));
  }
  if (kv.k == nullptr || kv.v == nullptr) {
    return absl::InvalidArgumentError("K or V is a null pointer");
  }
  return absl::OkStatus();
}

double ValueAt(const HeadSource& source, int channel) {
  if (source.type == ValueType::kFp32) return static_cast<const float*>(source.data)[channel];
  const uint16_t bits = static_cast<const uint16_t*>(source.data)[channel];
  return source.type == ValueType::kBf16 ? Bf16ToFloat(bits) : Fp16ToFloat(bits);
}

// The error for the first value that is not finite, in token order. There is one.
absl::Status NotFiniteError(const PageLayout& layout, const KvView& kv, PageTensor tensor) {
  for (int token = 0; token < kv.tokens; ++token) {
    for (int head = 0; head < layout.shape.kv_heads; ++head) {
      const HeadSource source = TokensOf(SourceOf(layout, kv, tensor, head), token, 1);
      if (std::isfinite(LargestMagnitude(source))) continue;
      for (int c = 0; c < layout.shape.head_dim; ++c) {
        const double value = ValueAt(source, c);
        if (std::isfinite(value)) continue;
        return absl::InvalidArgumentError(
            absl::StrCat(tensor == PageTensor::kK ? "K" : "V", " of token ", token, ", head ", head,
                         ", channel ", c, " is ", value, "; only finite values are stored"));
      }
    }
  }
  return absl::InternalError("a value was not finite and then could not be found");
}

// The largest sum of squares of a head's (group's) values, in the reference's order of sums.
double MaxSquaredNorm(const HeadSource& source, Codec codec) {
  HeadGroups parts = GroupsOf(source.head_dim);
  if (!TraitsOf(codec).rotated) parts = {1, {kMaxHeadDim, 0}};
  Scratch& scratch = ThreadScratch();
  LoadHead(source, source.head_dim, scratch.values);
  double largest = 0;
  for (int token = 0; token < source.tokens; ++token) {
    const float* values = scratch.values + token * source.head_dim;
    for (int part = 0; part < parts.count; ++part) {
      const int end = std::min(source.head_dim, parts.begin(part) + parts.channels[part]);
      double p[8] = {};
      for (int c = parts.begin(part); c < end; ++c) p[c % 8] += double{values[c]} * values[c];
      const double sum = ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
      largest = std::max(largest, sum);
    }
  }
  return largest;
}

// The largest magnitude of the whole tensor, read in the order in which it lies in memory: this is
// the pass that waits for it.
float LargestOfTensor(const PageLayout& layout, const KvView& kv, PageTensor tensor,
                      ThreadPool* pool) {
  constexpr int kTokensAtOnce = 16;
  const int heads = layout.shape.kv_heads;
  const bool heads_are_adjacent = kv.head_stride == layout.shape.head_dim;
  const size_t parts = heads_are_adjacent ? (kv.tokens + kTokensAtOnce - 1) / kTokensAtOnce : heads;
  std::vector<float> largest(parts);
  ParallelFor(pool, parts, [&](size_t part) {
    HeadSource source =
        SourceOf(layout, kv, tensor, heads_are_adjacent ? 0 : static_cast<int>(part));
    if (heads_are_adjacent) {
      const int begin = static_cast<int>(part) * kTokensAtOnce;
      source = TokensOf(source, begin, std::min(kTokensAtOnce, kv.tokens - begin));
      source.head_dim *= heads;
    }
    largest[part] = LargestMagnitude(source);
  });
  return *std::max_element(largest.begin(), largest.end());
}

// Checks that the tensor is finite and finds its exponent. Nearly always the largest magnitude
// alone shows that the norms are inside the range of exponent 0; sums of squares settle the rest.
absl::Status Examine(const PageLayout& layout, const KvView& kv, Tensor* tensor, ThreadPool* pool) {
  constexpr float kSurelyLargeEnough = 0x1p-12f;
  constexpr float kSurelySmallEnough = 0x1p11f;  // 256 squares of less stay below 2^30
  const float magnitude = LargestOfTensor(layout, kv, tensor->tensor, pool);
  if (!std::isfinite(magnitude)) return NotFiniteError(layout, kv, tensor->tensor);
  if (magnitude >= kSurelyLargeEnough && magnitude < kSurelySmallEnough) return absl::OkStatus();
  double max_squared_norm = 0;
  for (int head = 0; head < layout.shape.kv_heads; ++head) {
    const HeadSource source = SourceOf(layout, kv, tensor->tensor, head);
    max_squared_norm = std::max(max_squared_norm, MaxSquaredNorm(source, tensor->codec));
  }
  tensor->exponent = PageExponent(tensor->codec, kv.type == ValueType::kFp16, max_squared_norm);
  return absl::OkStatus();
}

// Writes the fp16 mean of every channel and keeps what it stands for in scratch.mean.
void StoreMean(int tokens, int head_dim, int padded_dim, double factor, Scratch& scratch,
               uint8_t* section) {
  SumTokens(scratch.values, tokens, padded_dim, scratch.sums);
  for (int c = 0; c < head_dim; ++c) {
    const uint16_t bits = FastDoubleToFiniteFp16(scratch.sums[c] / tokens * factor);
    std::memcpy(section + 2 * c, &bits, sizeof(bits));
    scratch.mean[c] = FastFp16ToFloat(bits);
  }
}

void EncodeCodes(const CentredHead& head, Codec codec, int head_dim, void* codes, uint8_t* scales) {
  auto* bytes = static_cast<uint8_t*>(codes);
  switch (TraitsOf(codec).scale_kind) {
    case ScaleKind::kNone:
      return EncodeHalves(head, codec, static_cast<uint16_t*>(codes));
    case ScaleKind::kHeadFp32:
      return EncodeFp8(head, bytes, scales);
    case ScaleKind::kBlockFp16:
      return EncodeBlocks(head, codec, bytes, scales);
    case ScaleKind::kGroupFp16:
      return EncodeTurbo(head, codec, GroupsOf(head_dim), bytes, scales);
    case ScaleKind::kGroupStepMinFp16:
      return EncodeInt(head, codec, GroupsOf(head_dim), bytes, scales);
  }
}

void EncodeHead(const PageLayout& layout, const KvView& kv, const Tensor& tensor, int head,
                uint8_t* slice) {
  const TensorSections<uint8_t> sections(layout, tensor.tensor, slice);
  const int head_dim = layout.shape.head_dim;
  const double factor = std::ldexp(1.0, -tensor.exponent);
  Scratch& scratch = ThreadScratch();
  LoadHead(SourceOf(layout, kv, tensor.tensor, head), tensor.padded_dim, scratch.values);
  std::fill(scratch.mean, scratch.mean + tensor.padded_dim, 0.0);
  if (tensor.tensor == PageTensor::kK && layout.shape.k_mean) {
    StoreMean(kv.tokens, head_dim, tensor.padded_dim, factor, scratch,
              slice + layout.k_mean.offset_bytes);
  }
  const CentredHead centred{scratch.values, kv.tokens, tensor.padded_dim, factor, scratch.mean};
  EncodeCodes(centred, tensor.codec, head_dim, scratch.codes, sections.scales);

  const size_t code_bytes = TraitsOf(tensor.codec).code_bits == 16 ? 2 : 1;
  const int block_tokens = (kv.tokens + kTileTokens - 1) / kTileTokens * kTileTokens;
  auto* codes = reinterpret_cast<uint8_t*>(scratch.codes);
  std::fill(codes + kv.tokens * tensor.padded_dim * code_bytes,
            codes + block_tokens * tensor.padded_dim * code_bytes, 0);
  PackTiles(tensor.codec, sections.tile_kind, codes, kv.tokens, tensor.padded_dim, sections.codes);
}

}  // namespace

absl::Status EncodePage(const PageLayout& layout, const PageIdentity& identity, const KvView& kv,
                        absl::Span<uint8_t> page, ThreadPool* pool) {
  TURBOKV_RETURN_IF_ERROR(ValidateArguments(layout, kv, page));
  Tensor k{PageTensor::kK, layout.shape.k_codec, layout.k_padded_dim};
  Tensor v{PageTensor::kV, layout.shape.v_codec, layout.v_padded_dim};
  TURBOKV_RETURN_IF_ERROR(Examine(layout, kv, &k, pool));
  TURBOKV_RETURN_IF_ERROR(Examine(layout, kv, &v, pool));
  ParallelFor(pool, layout.shape.kv_heads, [&](size_t head) {
    uint8_t* slice = page.data() + layout.SliceOffset(static_cast<int>(head));
    std::fill(slice, slice + layout.slice_bytes, 0);
    EncodeHead(layout, kv, k, static_cast<int>(head), slice);
    EncodeHead(layout, kv, v, static_cast<int>(head), slice);
  });
  SealPage(layout, identity, kv.tokens, k.exponent, v.exponent, page);
  return absl::OkStatus();
}

}  // namespace turbokv::cpu
