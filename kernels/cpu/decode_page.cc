#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "kernels/cpu/codec.h"
#include "kernels/cpu/decode_kernels.h"
#include "kernels/cpu/encode_kernels.h"
#include "kernels/cpu/fast_fp16.h"
#include "kernels/format/tensor_sections.h"

namespace turbokv::cpu {
namespace {

struct Scratch {
  float values[kPageTokens * kMaxHeadDim];
  uint16_t codes[kPageTokens * kMaxHeadDim];  // or as many bytes
};

Scratch& ThreadScratch() {
  thread_local std::unique_ptr<Scratch> scratch = std::make_unique<Scratch>();
  return *scratch;
}

// The K mean of a slice, without exponent.
void LoadMean(const uint8_t* section, int head_dim, float* mean) {
  for (int c = 0; c < head_dim; ++c) {
    uint16_t bits;
    std::memcpy(&bits, section + 2 * c, sizeof(bits));
    mean[c] = FastFp16ToFloat(bits);
  }
}

// AddMean for a page with an exponent, whose power of two may not be a float.
void AddMeanAndScale(const float* values, const float* mean, int head_dim, int exponent,
                     float* out) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  for (int c = 0; c < head_dim; ++c) {
    const double value = std::ldexp(double{values[c]} + mean[c], exponent);
    out[c] = static_cast<float>(std::clamp(value, -kLargest, kLargest));
  }
}

void DecodeHead(const PageView& page, PageTensor tensor, int head, const KvOutput& output) {
  const bool is_k = tensor == PageTensor::kK;
  const PageLayout& layout = page.layout;
  const TensorSections<const uint8_t> sections(layout, tensor, page.Slice(head));
  const int tokens = page.header.tokens;
  const int head_dim = layout.shape.head_dim;
  const int block_tokens = (tokens + kTileTokens - 1) / kTileTokens * kTileTokens;
  Scratch& scratch = ThreadScratch();
  UnpackTiles(sections.codec, sections.tile_kind, sections.codes, tokens, sections.padded_dim,
              scratch.codes);
  CodesToFloats(sections.codec, scratch.codes,
                static_cast<size_t>(block_tokens) * sections.padded_dim, scratch.values);
  ScaleAndUnrotate(sections.codec, sections.scales, tokens, head_dim, sections.padded_dim,
                   scratch.values);

  float mean[kMaxHeadDim] = {};
  if (is_k && layout.shape.k_mean) {
    LoadMean(page.Slice(head) + layout.k_mean.offset_bytes, head_dim, mean);
  }
  const int exponent = is_k ? page.header.k_exponent : page.header.v_exponent;
  float* out = (is_k ? output.k : output.v) + head * output.head_stride;
  for (int token = 0; token < tokens; ++token, out += output.token_stride) {
    const float* values = scratch.values + token * sections.padded_dim;
    if (exponent == 0) {
      AddMean(values, mean, head_dim, out);
    } else {
      AddMeanAndScale(values, mean, head_dim, exponent, out);
    }
  }
}

}  // namespace

void DecodePage(const PageView& page, const KvOutput& output, ThreadPool* pool) {
  ParallelFor(pool, page.layout.shape.kv_heads, [&](size_t head) {
    if (output.k != nullptr) DecodeHead(page, PageTensor::kK, static_cast<int>(head), output);
    if (output.v != nullptr) DecodeHead(page, PageTensor::kV, static_cast<int>(head), output);
  });
}

}  // namespace turbokv::cpu
