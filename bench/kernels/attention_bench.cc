// Attention on packed pages against the bf16 loop: tokens a second of one layer, one thread, one
// query token, 8 KV heads of head_dim 128.
#include <cmath>
#include <cstdio>
#include <cstring>

#include "bench/kernels/bench_support.h"
#include "bench/kernels/bf16_attention.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/codec.h"
#include "kernels/format/small_floats.h"

namespace turbokv {
namespace {

constexpr int kKvHeads = 8;
constexpr int kHeadDim = 128;
constexpr int kTokenValues = kKvHeads * kHeadDim;
constexpr int kGroupSizes[] = {1, 4};
const float kScale = 1 / std::sqrt(float{kHeadDim});

// The same K and V, NHD.
struct Input {
  std::vector<uint16_t> k, v;
  std::vector<float> q;
  int tokens;
};

std::string NameOf(const std::string& kind, int group) {
  return "attention/" + kind + "/heads:" + std::to_string(group);
}

void Report(benchmark::State& state, const FastestIteration& fastest, int tokens, size_t bytes) {
  fastest.Report(state, kTokensPerSecond, tokens);
  fastest.Report(state, kBytesPerSecond, static_cast<double>(bytes));
}

std::vector<uint16_t> ToHnd(const std::vector<uint16_t>& nhd, int tokens) {
  std::vector<uint16_t> hnd(nhd.size());
  for (int token = 0; token < tokens; ++token) {
    for (int head = 0; head < kKvHeads; ++head) {
      std::memcpy(&hnd[(static_cast<size_t>(head) * tokens + token) * kHeadDim],
                  &nhd[static_cast<size_t>(token) * kTokenValues + head * kHeadDim], 2 * kHeadDim);
    }
  }
  return hnd;
}

void AttendBf16(benchmark::State& state, const Input* input, int group, bool head_major) {
  const int tokens = input->tokens;
  const std::vector<uint16_t> k = head_major ? ToHnd(input->k, tokens) : input->k;
  const std::vector<uint16_t> v = head_major ? ToHnd(input->v, tokens) : input->v;
  KvView kv = NhdView(ValueType::kBf16, k.data(), v.data(), tokens, kKvHeads, kHeadDim);
  if (head_major) {
    kv.token_stride = kHeadDim;
    kv.head_stride = ptrdiff_t{tokens} * kHeadDim;
  }
  std::vector<float> q(input->q.begin(), input->q.begin() + group * kTokenValues);
  for (float& value : q) value *= kScale;
  std::vector<float> out(q.size());
  FastestIteration fastest;
  for (auto _ : state) {
    fastest.Begin();
    RunBf16Attention({kv, kKvHeads, group, q.data(), out.data()});
    benchmark::ClobberMemory();
    fastest.End();
  }
  Report(state, fastest, tokens, 2 * (k.size() + v.size()));
}

void AttendPages(benchmark::State& state, const Input* input, int group, Codec codec) {
  const bool k_mean = TraitsOf(codec).scale_kind != ScaleKind::kNone;
  const PageLayout layout = *PageLayout::For({kKvHeads, kHeadDim, codec, codec, k_mean});
  const int page_count = input->tokens / kPageTokens;
  std::vector<uint8_t> bytes(page_count * layout.page_bytes);
  std::vector<absl::Span<const uint8_t>> pages;
  for (int i = 0; i < page_count; ++i) {
    const auto page = absl::MakeSpan(bytes).subspan(i * layout.page_bytes, layout.page_bytes);
    const size_t offset = static_cast<size_t>(i) * kPageTokens * kTokenValues;
    const KvView kv = NhdView(ValueType::kBf16, &input->k[offset], &input->v[offset], kPageTokens,
                              kKvHeads, kHeadDim);
    if (!cpu::EncodePage(layout, {}, kv, page).ok()) state.SkipWithError("encode");
    pages.push_back(page);
  }
  const AttentionShape shape{kKvHeads * group, kKvHeads, kHeadDim};
  AttentionOptions options;
  options.softmax_scale = kScale;
  const int64_t positions[] = {input->tokens - 1};
  std::vector<float> out(group * kTokenValues);
  FastestIteration fastest;
  for (auto _ : state) {
    fastest.Begin();
    const absl::Status status = cpu::DecodeAttention(
        shape, options, {pages, 0, {}}, {positions, input->q.data(), out.data(), nullptr});
    if (!status.ok()) state.SkipWithError("attention");
    fastest.End();
  }
  Report(state, fastest, input->tokens, bytes.size());
}

void PrintRatios(const KeepingReporter& reporter) {
  const double read = reporter.Counter("memory/read", kBytesPerSecond);
  std::printf("\nmemory bandwidth of one core: read %.1f GB/s, copy %.1f GB/s\n", read / 1e9,
              reporter.Counter("memory/copy", kBytesPerSecond) / 1e9);
  std::printf("%-10s %6s %16s %14s %10s %12s\n", "codec", "heads", "M tokens/s", "GB/s", "of read",
              "of bf16");
  for (int group : kGroupSizes) {
    const auto tokens = [&](const std::string& kind) {
      return reporter.Counter(NameOf(kind, group), kTokensPerSecond);
    };
    const double bf16 = std::max(tokens("bf16_loop_nhd"), tokens("bf16_loop_hnd"));
    const auto print = [&](const std::string& kind) {
      if (tokens(kind) == 0) return;
      const double bytes = reporter.Counter(NameOf(kind, group), kBytesPerSecond);
      std::printf("%-14s %2d %16.2f %14.2f %9.0f%% %11.2fx\n", kind.c_str(), group,
                  tokens(kind) / 1e6, bytes / 1e9, 100 * bytes / read, tokens(kind) / bf16);
    };
    print("bf16_loop_nhd");
    print("bf16_loop_hnd");
    for (const CodecTraits& traits : AllCodecs()) print(std::string(traits.name));
  }
}

int Main(int argc, char** argv) {
  const bool smoke = TakeSmokeFlag(&argc, argv);
  benchmark::Initialize(&argc, argv);
  const int tokens = smoke ? 2 * kPageTokens : 32768;
  const size_t count = static_cast<size_t>(tokens) * kTokenValues;
  Input input{GaussianBf16(count, 1), GaussianBf16(count, 2), {}, tokens};
  for (uint16_t bits : GaussianBf16(4 * kTokenValues, 3)) input.q.push_back(Bf16ToFloat(bits));
  RegisterMemoryBandwidth(4 * count);
  for (int group : kGroupSizes) {
    const auto add = [&](const std::string& kind, auto... args) {
      benchmark::RegisterBenchmark(NameOf(kind, group).c_str(), args...)
          ->Unit(benchmark::kMillisecond);
    };
    add("bf16_loop_nhd", AttendBf16, &input, group, false);
    add("bf16_loop_hnd", AttendBf16, &input, group, true);
    for (const CodecTraits& traits : AllCodecs()) {
      if (traits.implemented) {
        add(std::string(traits.name), AttendPages, &input, group, traits.codec);
      }
    }
  }
  KeepingReporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  PrintRatios(reporter);
  return 0;
}

}  // namespace
}  // namespace turbokv

int main(int argc, char** argv) { return turbokv::Main(argc, argv); }
