// Pages to floats with the reference's arithmetic: in double, every operation rounded, in the
// reference's order (kernels/reference/head_codec.cc).
//
// A block takes 32 tokens of one head, a rotated group after the other. A thread first has 16
// neighbouring channels of a token (strides 1 to 8 of the Hadamard matrix), then, through shared
// memory, channels 16 apart (the strides above).
#include "kernels/cuda/dequantize/decode_token.cuh"
#include "kernels/cuda/dequantize/dequantize_kernels.h"
#include "kernels/cuda/dequantize/exact_codes.cuh"
#include "kernels/cuda/dequantize/params.cuh"
#include "kernels/cuda/encode/exact_math.cuh"

namespace turbokv::cuda {
namespace {

constexpr int kRun = 16;  // channels of a thread
constexpr int kMaxRuns = 128 / kRun;
constexpr int kThreads = kTileTokens * kMaxRuns;
static_assert(kThreads == kExactDecodeBlockThreads);

// One token of one head.
struct TokenSource {
  const ExactDecodeParams& params;
  const uint8_t* slice;
  int token;
  int exponent;
};

TURBOKV_DEVICE bool IsNegative(uint32_t (*signs)(int), int channel) {
  return signs(channel / 32) >> channel % 32 & 1;
}

TURBOKV_DEVICE double Scale(const TokenSource& source, int row) {
  const auto* rows =
      reinterpret_cast<const uint16_t*>(source.slice + source.params.source.scales_offset);
  return HalfToFloat(rows[row * kPageTokens + source.token]);
}

// Before the rotation is undone.
TURBOKV_DEVICE double ValueOf(const TokenSource& source, int channel) {
  const ExactDecodeParams& params = source.params;
  const CodecFacts facts = FactsOf(params.codec);
  const int tile = source.token / kTileTokens * (params.source.head_dim / kTileChannels) +
                   channel / kTileChannels;
  const auto* words = reinterpret_cast<const uint32_t*>(source.slice + params.source.codes_offset +
                                                        tile * 128 * facts.code_bits);
  const uint32_t code = ReadTileCode(
      words, facts, PlaceInTile(params.is_v, source.token % kTileTokens, channel % kTileChannels));
  switch (params.codec) {
    case Codec::kBf16:
      return FloatOf(code << 16);
    case Codec::kFp16:
      return HalfToFloat(code);
    case Codec::kFp8E4m3: {
      const float scale =
          *reinterpret_cast<const float*>(source.slice + params.source.scales_offset);
      const TokenFactors none{};
      return Multiply(scale, CodeValue<Codec::kFp8E4m3>(code, nullptr, none, 0));
    }
    case Codec::kQ8_0:
      return Multiply(Scale(source, channel / kScaleBlockChannels), static_cast<int8_t>(code));
    case Codec::kQ4_0:
      return Multiply(Scale(source, channel / kScaleBlockChannels), static_cast<int>(code) - 8);
    default:
      break;
  }
  const int group = channel / params.group_channels;
  if (facts.scale_kind == ScaleKind::kGroupFp16) {
    return Multiply(params.centroid_scale, Multiply(Scale(source, group), params.centroids[code]));
  }
  return Add(Scale(source, 2 * group + 1), Multiply(Scale(source, 2 * group), code));
}

// K mean and exponent; finite even where quantization carried a value beyond the largest float.
TURBOKV_DEVICE float Finished(const TokenSource& source, int channel, double value) {
  constexpr double kLargest = 0x1.fffffep127;
  const PageSource& page = source.params.source;
  const auto* means = reinterpret_cast<const uint16_t*>(source.slice + page.mean_offset);
  // Without a mean, zero is added: it makes a zero of -0.
  value = Add(value, page.mean_offset < 0 ? 0.0f : HalfToFloat(means[channel]));
  value = Multiply(value, PowerOfTwo(source.exponent));
  value = value > kLargest ? kLargest : value < -kLargest ? -kLargest : value;
  return __double2float_rn(value);
}

// The Walsh-Hadamard stages among kCount values of this thread.
template <int kCount>
TURBOKV_DEVICE void Transform(double (&values)[kCount]) {
#pragma unroll
  for (int stride = 1; stride < kCount; stride *= 2) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i & stride) continue;
      const double a = values[i];
      const double b = values[i + stride];
      values[i] = Add(a, b);
      values[i + stride] = Subtract(a, b);
    }
  }
}

// The stages of strides 16 and up, of channels 16 q + m of the group, and what follows them.
template <int kRuns>
TURBOKV_DEVICE void FinishColumn(const TokenSource& source, const double* group, int begin, int m,
                                 float* out) {
  double values[kRuns];
#pragma unroll
  for (int q = 0; q < kRuns; ++q) values[q] = group[kRun * q + m];
  Transform(values);
#pragma unroll
  for (int q = 0; q < kRuns; ++q) {
    const int channel = kRun * q + m;
    const double scaled = Multiply(values[q], source.params.inverse_root);
    const double value = IsNegative(FirstSigns, channel) ? -scaled : scaled;
    out[begin + channel] = Finished(source, begin + channel, value);
  }
}

// Channels begin + 16 run .. + 15, up to stride 8, into `group`.
TURBOKV_DEVICE void StartRun(const TokenSource& source, int begin, int run, double* group) {
  double values[kRun];
#pragma unroll 1
  for (int i = 0; i < kRun; ++i) {
    const int channel = kRun * run + i;
    const double value = ValueOf(source, begin + channel);
    group[channel] = IsNegative(SecondSigns, channel) ? -value : value;
  }
#pragma unroll
  for (int i = 0; i < kRun; ++i) values[i] = group[kRun * run + i];
  Transform(values);
#pragma unroll
  for (int i = 0; i < kRun; ++i) group[kRun * run + i] = values[i];
}

TURBOKV_DEVICE void DecodeRotated(const TokenSource& source, int run, double* group, float* out) {
  const int channels = source.params.group_channels;
  const int runs = channels / kRun;
  const int head_dim = source.params.source.head_dim;
  for (int begin = 0; begin < head_dim; begin += channels) {
    __syncthreads();
    if (run < runs) StartRun(source, begin, run, group);
    __syncthreads();
    if (run >= runs) continue;
    for (int m = run; m < kRun; m += runs) {
      if (runs == kMaxRuns) {
        FinishColumn<kMaxRuns>(source, group, begin, m, out);
      } else {
        FinishColumn<kMaxRuns / 2>(source, group, begin, m, out);
      }
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    ExactDecodeKernel(const __grid_constant__ ExactDecodeParams k,
                      const __grid_constant__ ExactDecodeParams v) {
  __shared__ double groups[kTileTokens][kMaxRuns * kRun + 1];  // one more: rows in other banks
  const ExactDecodeParams& params = blockIdx.y == 0 ? k : v;
  const PageSource& page = params.source;
  const int index = static_cast<int>(blockIdx.x) / page.heads;
  const int head = static_cast<int>(blockIdx.x) % page.heads;
  const int row = static_cast<int>(threadIdx.x) / kMaxRuns;
  const int run = static_cast<int>(threadIdx.x) % kMaxRuns;
  const int token = kTileTokens * static_cast<int>(blockIdx.z) + row;
  const uint8_t* header = page.pool + page.page_ids[index] * page.page_stride;
  const uint8_t* slice = header + kPageHeaderBytes + int64_t{head} * page.slice_bytes;
  const int exponent = *reinterpret_cast<const int16_t*>(header + page.exponent_offset);
  const TokenSource source{params, slice, token, exponent};
  const int64_t vector = (int64_t{index} * kPageTokens + token) * page.heads + head;
  float* const out = params.values + vector * page.head_dim;
  if (FactsOf(params.codec).rotated) {
    DecodeRotated(source, run, groups[row], out);
    return;
  }
  for (int channel = run; channel < page.head_dim; channel += kMaxRuns) {
    out[channel] = Finished(source, channel, ValueOf(source, channel));
  }
}

}  // namespace

const void* ExactDecodeKernelFunction() { return reinterpret_cast<const void*>(ExactDecodeKernel); }

}  // namespace turbokv::cuda
