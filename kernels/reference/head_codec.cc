#include "kernels/reference/head_codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/format/rotation.h"
#include "kernels/format/small_floats.h"
#include "kernels/reference/rotation.h"

namespace turbokv::reference {
namespace {

using Writer = TensorSections<uint8_t>;
using Reader = TensorSections<const uint8_t>;
using GroupBuffer = std::array<double, kMaxGroupChannels>;

// bf16 and fp16: the code is the value.
void EncodeValues(const Writer& sections, int token, absl::Span<const double> vector) {
  for (size_t c = 0; c < vector.size(); ++c) {
    const uint16_t code = sections.codec == Codec::kBf16
                              ? FloatToFiniteBf16(static_cast<float>(vector[c]))
                              : DoubleToFiniteFp16(vector[c]);
    WriteCode(sections, token, static_cast<int>(c), code);
  }
}

// 1 / d, or 0 where that is no number: a block that small is stored as zeros.
float InverseOrZero(float d) {
  const float inverse = d == 0 ? 0.0f : 1.0f / d;
  return std::isinf(inverse) ? 0.0f : inverse;
}

// ggml's quantize_row_q8_0_ref and quantize_row_q4_0_ref, in float as there. `block` holds 32
// values.
void EncodeQ8Block(const Writer& sections, int token, int begin, absl::Span<const float> block) {
  float largest = 0;
  for (float value : block) largest = std::max(largest, std::abs(value));
  const float d = largest / 127.0f;
  const float inverse = InverseOrZero(d);
  WriteScale(sections, begin / kScaleBlockChannels, token, DoubleToFiniteFp16(d));
  for (size_t c = 0; c < block.size(); ++c) {
    const int8_t code = static_cast<int8_t>(std::round(block[c] * inverse));
    WriteCode(sections, token, begin + static_cast<int>(c), static_cast<uint8_t>(code));
  }
}

void EncodeQ4Block(const Writer& sections, int token, int begin, absl::Span<const float> block) {
  float extreme = 0;
  for (float value : block) {
    if (std::abs(value) > std::abs(extreme)) extreme = value;
  }
  const float d = extreme / -8.0f;
  const float inverse = InverseOrZero(d);
  WriteScale(sections, begin / kScaleBlockChannels, token, DoubleToFiniteFp16(d));
  for (size_t c = 0; c < block.size(); ++c) {
    const int code = static_cast<int>(block[c] * inverse + 8.5f);
    WriteCode(sections, token, begin + static_cast<int>(c), std::min(15, code));
  }
}

void EncodeBlocks(const Writer& sections, int token, absl::Span<const double> vector) {
  std::array<float, kScaleBlockChannels> block;
  for (size_t begin = 0; begin < vector.size(); begin += block.size()) {
    for (size_t c = 0; c < block.size(); ++c) block[c] = static_cast<float>(vector[begin + c]);
    const auto encode = sections.codec == Codec::kQ8_0 ? EncodeQ8Block : EncodeQ4Block;
    encode(sections, token, static_cast<int>(begin), block);
  }
}

// Centroids and thresholds are those of 128 channels times CentroidScale.
void EncodeTurboGroup(const Writer& sections, int token, int group, int begin,
                      absl::Span<double> values) {
  const double root_channels = std::sqrt(static_cast<double>(values.size()));
  const double norm = std::sqrt(SumOfSquares(values));
  const bool normalise = norm > kMinNormalizableNorm;
  RotateGroup(values, 1.0 / (normalise ? norm * root_channels : root_channels));

  const double centroid_scale = CentroidScale(static_cast<int>(values.size()));
  const absl::Span<const double> centroids = TurboCentroids(sections.codec);
  const absl::Span<const double> thresholds = TurboThresholds(sections.codec);
  for (size_t c = 0; c < values.size(); ++c) {
    const auto not_above = [&](double threshold) {
      return threshold * centroid_scale <= values[c];
    };
    const auto code = std::count_if(thresholds.begin(), thresholds.end(), not_above);
    WriteCode(sections, token, begin + static_cast<int>(c), static_cast<uint32_t>(code));
    values[c] = centroids[code] * centroid_scale;
  }
  const double centroid_norm = std::sqrt(SumOfSquares(values));
  WriteScale(sections, group, token, DoubleToFiniteFp16(norm / centroid_norm));
}

void EncodeIntGroup(const Writer& sections, int token, int group, int begin,
                    absl::Span<double> values) {
  RotateGroup(values);
  const double max_code = (1 << TraitsOf(sections.codec).code_bits) - 1;
  const auto [min, max] = std::minmax_element(values.begin(), values.end());
  const uint16_t min_bits = DoubleToFiniteFp16(*min);
  const double stored_min = Fp16ToFloat(min_bits);
  const uint16_t step_bits = DoubleToFiniteFp16((*max - stored_min) / max_code);
  const double step = Fp16ToFloat(step_bits);
  WriteScale(sections, 2 * group, token, step_bits);
  WriteScale(sections, 2 * group + 1, token, min_bits);
  if (step == 0) return;  // every code is 0
  for (size_t c = 0; c < values.size(); ++c) {
    const double code = std::floor((values[c] - stored_min) / step + 0.5);
    WriteCode(sections, token, begin + static_cast<int>(c),
              static_cast<uint32_t>(std::clamp(code, 0.0, max_code)));
  }
}

// The value of a code, before the rotation is undone.
double ValueOf(const Reader& sections, int group, int token, int channel) {
  const uint32_t code = ReadCode(sections, token, channel);
  const auto scale = [&](int row) { return double{Fp16ToFloat(ReadScale(sections, row, token))}; };
  switch (sections.codec) {
    case Codec::kBf16:
      return Bf16ToFloat(static_cast<uint16_t>(code));
    case Codec::kFp16:
      return Fp16ToFloat(static_cast<uint16_t>(code));
    case Codec::kFp8E4m3: {
      float head_scale;
      std::memcpy(&head_scale, sections.scales, sizeof(head_scale));
      return double{head_scale} * Fp8E4m3ToFloat(static_cast<uint8_t>(code));
    }
    case Codec::kQ8_0:
      return scale(channel / kScaleBlockChannels) * static_cast<int8_t>(code);
    case Codec::kQ4_0:
      return scale(channel / kScaleBlockChannels) * (static_cast<int>(code) - 8);
    case Codec::kTurbo4:
    case Codec::kTurbo3:
    case Codec::kTurbo2:
      return scale(group) * TurboCentroids(sections.codec)[code];
    default:  // intN
      return scale(2 * group + 1) + scale(2 * group) * code;
  }
}

bool IsTurbo(Codec codec) { return TraitsOf(codec).scale_kind == ScaleKind::kGroupFp16; }

}  // namespace

void EncodeVector(const Writer& sections, const HeadGroups& groups, int token,
                  absl::Span<const double> vector) {
  const CodecTraits& traits = TraitsOf(sections.codec);
  if (traits.scale_kind == ScaleKind::kNone) return EncodeValues(sections, token, vector);
  if (traits.scale_kind == ScaleKind::kBlockFp16) return EncodeBlocks(sections, token, vector);
  const auto encode = IsTurbo(sections.codec) ? EncodeTurboGroup : EncodeIntGroup;
  for (int group = 0; group < groups.count; ++group) {
    GroupBuffer buffer;
    const absl::Span<double> values(buffer.data(), groups.channels[group]);
    std::copy_n(vector.begin() + groups.begin(group), values.size(), values.begin());
    encode(sections, token, group, groups.begin(group), values);
  }
}

float Fp8Scale(float largest_magnitude) {
  const float scale = largest_magnitude / 448.0f;
  if (scale == 0 && largest_magnitude > 0) return std::numeric_limits<float>::denorm_min();
  return scale;
}

void EncodeFp8Vector(const Writer& sections, int token, float scale,
                     absl::Span<const double> vector) {
  if (scale == 0) return;
  for (size_t c = 0; c < vector.size(); ++c) {
    const uint8_t code = FloatToFp8E4m3(static_cast<float>(vector[c]) / scale);
    WriteCode(sections, token, static_cast<int>(c), code);
  }
}

void DecodeVector(const Reader& sections, const HeadGroups& groups, int token,
                  absl::Span<double> vector) {
  if (!TraitsOf(sections.codec).rotated) {
    for (size_t c = 0; c < vector.size(); ++c) {
      vector[c] = ValueOf(sections, 0, token, static_cast<int>(c));
    }
    return;
  }
  for (int group = 0; group < groups.count; ++group) {
    const int begin = groups.begin(group);
    const int channels = groups.channels[group];
    const double factor = IsTurbo(sections.codec) ? CentroidScale(channels) : 1.0;
    for (int c = begin; c < begin + channels; ++c) {
      vector[c] = factor * ValueOf(sections, group, token, c);
    }
    UnrotateGroup(vector.subspan(begin, channels));
  }
}

}  // namespace turbokv::reference
