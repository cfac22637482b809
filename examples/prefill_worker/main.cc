// turbokv-demo-prefill: runs a prompt through the model and streams every layer's K/V to turbokvd
// as soon as that layer has computed it.
#include <cstdio>

#include "base/status_macros.h"
#include "client/prefill_writer.h"
#include "examples/demo/setup.h"
#include "kernels/format/small_floats.h"

namespace turbokv::examples {
namespace {

// K and V of a layer as an inference engine would have them: bf16.
class Bf16Layer {
 public:
  Bf16Layer(const LlamaConfig& config, const KvView& kv)
      : config_(config),
        tokens_(kv.tokens),
        k_(Convert(static_cast<const float*>(kv.k))),
        v_(Convert(static_cast<const float*>(kv.v))) {}

  KvView view() const {
    return NhdView(ValueType::kBf16, k_.data(), v_.data(), tokens_, config_.kv_heads,
                   config_.head_dim);
  }

 private:
  std::vector<uint16_t> Convert(const float* values) const {
    std::vector<uint16_t> bits(static_cast<size_t>(tokens_) * config_.kv_dim());
    for (size_t i = 0; i < bits.size(); ++i) bits[i] = FloatToBf16(values[i]);
    return bits;
  }

  const LlamaConfig& config_;
  const int tokens_;
  const std::vector<uint16_t> k_, v_;
};

absl::Status Run(const DemoFlags& flags) {
  TURBOKV_ASSIGN_OR_RETURN(const DemoSetup setup, SetUp(flags));
  if (setup.dropped_prompt_tokens > 0) {
    std::printf("The prompt's first %lld tokens are left out: it would not fit the context.\n",
                static_cast<long long>(setup.dropped_prompt_tokens));
  }
  const Stopwatch total;
  double store_ms = 0;  // inside the writer; the model computes the rest of the time
  Stopwatch opening;
  TURBOKV_ASSIGN_OR_RETURN(auto writer,
                           PrefillWriter::Open(setup.channel, setup.spec, setup.prompt_ids, {}));
  store_ms += opening.ms();

  PromptAttention attention(setup.model->config(), [&](int layer, const KvView& kv) {
    const Bf16Layer values(setup.model->config(), kv);
    const Stopwatch writing;
    const absl::Status written = writer->WriteLayer(layer, values.view());
    store_ms += writing.ms();
    std::printf("layer %d: K/V of %d tokens on their way after %.1f ms\n", layer, kv.tokens,
                total.ms());
    return written;
  });
  TURBOKV_RETURN_IF_ERROR(setup.model->Forward(setup.prompt_ids, 0, &attention).status());

  const Stopwatch finishing;
  TURBOKV_ASSIGN_OR_RETURN(const StoreResult result, writer->Finish());
  store_ms += finishing.ms();
  std::printf("%lld blocks of %d tokens stored, %lld were there already; %s\n",
              static_cast<long long>(result.stored_blocks), kPageTokens,
              static_cast<long long>(result.present_blocks),
              result.stored_tail ? "the exact tail too" : "no tail");
  std::printf(
      "prompt_tokens=%zu stored_blocks=%lld present_blocks=%lld raw_bytes=%lld "
      "kept_bytes=%lld prefill_ms=%.2f store_ms=%.2f\n",
      setup.prompt_ids.size(), static_cast<long long>(result.stored_blocks),
      static_cast<long long>(result.present_blocks), static_cast<long long>(result.raw_bytes),
      static_cast<long long>(result.kept_bytes), total.ms(), store_ms);
  return absl::OkStatus();
}

}  // namespace
}  // namespace turbokv::examples

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // progress shows through a pipe too
  turbokv::examples::DemoFlags flags;
  CLI::App app(
      "Runs a prompt through a model and streams every layer's K/V to turbokvd while the model\n"
      "computes. turbokv-demo-decode then goes on from there.");
  turbokv::examples::AddFlags(&app, &flags);
  CLI11_PARSE(app, argc, argv);
  return turbokv::examples::ExitCode("turbokv-demo-prefill", turbokv::examples::Run(flags));
}
