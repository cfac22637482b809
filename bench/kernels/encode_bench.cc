// Encoding and decoding speed of every codec on one core, in bytes of bf16 K and V a second.
#include <cstdio>

#include "bench/kernels/bench_support.h"
#include "kernels/cpu/codec.h"

namespace turbokv {
namespace {

constexpr int kKvHeads = 8;
constexpr int kHeadDim = 128;
constexpr size_t kPageValues = size_t{kPageTokens} * kKvHeads * kHeadDim;

struct Input {
  std::vector<uint16_t> k, v;
  int pages;

  KvView Page(int page) const {
    return NhdView(ValueType::kBf16, k.data() + page * kPageValues, v.data() + page * kPageValues,
                   kPageTokens, kKvHeads, kHeadDim);
  }
  size_t bytes() const { return 2 * (k.size() + v.size()); }
};

PageLayout LayoutOf(Codec codec) {
  const bool k_mean = TraitsOf(codec).scale_kind != ScaleKind::kNone;
  return *PageLayout::For({kKvHeads, kHeadDim, codec, codec, k_mean});
}

void Encode(benchmark::State& state, const Input* input, Codec codec) {
  const PageLayout layout = LayoutOf(codec);
  std::vector<uint8_t> pages(layout.page_bytes * input->pages);
  FastestIteration fastest;
  for (auto _ : state) {
    fastest.Begin();
    for (int i = 0; i < input->pages; ++i) {
      const auto page = absl::MakeSpan(pages).subspan(i * layout.page_bytes, layout.page_bytes);
      if (!cpu::EncodePage(layout, {}, input->Page(i), page).ok()) state.SkipWithError("encode");
    }
    fastest.End();
  }
  fastest.Report(state, kBytesPerSecond, static_cast<double>(input->bytes()));
}

void Decode(benchmark::State& state, const Input* input, Codec codec) {
  const PageLayout layout = LayoutOf(codec);
  std::vector<uint8_t> bytes(layout.page_bytes);
  if (!cpu::EncodePage(layout, {}, input->Page(0), absl::MakeSpan(bytes)).ok()) {
    state.SkipWithError("encode");
  }
  const PageView page = *ParsePage(bytes);
  std::vector<float> k(kPageValues), v(kPageValues);
  FastestIteration fastest;
  for (auto _ : state) {
    fastest.Begin();
    cpu::DecodePage(page, {k.data(), v.data(), kKvHeads * kHeadDim, kHeadDim});
    fastest.End();
  }
  fastest.Report(state, kBytesPerSecond, 4.0 * kPageValues);
}

void PrintRatios(const KeepingReporter& reporter) {
  const double read = reporter.Counter("memory/read", kBytesPerSecond);
  const double copy = reporter.Counter("memory/copy", kBytesPerSecond);
  std::printf("\nmemory bandwidth of one core: read %.1f GB/s, copy %.1f GB/s\n", read / 1e9,
              copy / 1e9);
  std::printf("%-10s %14s %10s %14s\n", "codec", "encode GB/s", "of read", "decode GB/s");
  for (const CodecTraits& traits : AllCodecs()) {
    const std::string name(traits.name);
    const double encode = reporter.Counter("encode/" + name, kBytesPerSecond);
    if (encode == 0) continue;
    std::printf("%-10s %14.2f %9.1f%% %14.2f\n", name.c_str(), encode / 1e9, 100 * encode / read,
                reporter.Counter("decode/" + name, kBytesPerSecond) / 1e9);
  }
}

int Main(int argc, char** argv) {
  const bool smoke = TakeSmokeFlag(&argc, argv);
  benchmark::Initialize(&argc, argv);
  const int pages = smoke ? 1 : 32768 / kPageTokens;
  const Input input{GaussianBf16(pages * kPageValues, 1), GaussianBf16(pages * kPageValues, 2),
                    pages};
  RegisterMemoryBandwidth(input.bytes());
  for (const CodecTraits& traits : AllCodecs()) {
    if (!traits.implemented) continue;
    const std::string name(traits.name);
    benchmark::RegisterBenchmark(("encode/" + name).c_str(), Encode, &input, traits.codec)
        ->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark(("decode/" + name).c_str(), Decode, &input, traits.codec)
        ->Unit(benchmark::kMillisecond);
  }
  KeepingReporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  PrintRatios(reporter);
  return 0;
}

}  // namespace
}  // namespace turbokv

int main(int argc, char** argv) { return turbokv::Main(argc, argv); }
