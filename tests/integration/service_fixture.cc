#include "tests/integration/service_fixture.h"

#include <cstring>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "kernels/format/small_floats.h"
#include "kernels/reference/codec.h"

namespace turbokv::testing {

ServerConfig TestConfig() {
  ServerConfig config;
  config.listen = "127.0.0.1:0";
  config.metrics_listen = "";  // its shutdown takes two seconds
  config.memory_bytes = size_t{64} << 20;
  config.slab_bytes = size_t{8} << 20;
  config.encode_threads = 2;
  config.distortion_sample_rate = 1.0;
  return config;
}

std::unique_ptr<Server> StartServer(const ServerConfig& config,
                                    std::vector<std::unique_ptr<Device>> devices) {
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(config, std::move(devices));
  if (!server.ok()) {
    ADD_FAILURE() << server.status();
    std::abort();
  }
  return *std::move(server);
}

std::shared_ptr<CacheChannel> ConnectTo(const Server& server, const std::string& tenant,
                                        const std::string& client) {
  ChannelOptions options;
  options.address = absl::StrCat("127.0.0.1:", server.port());
  options.tenant = tenant;
  options.client_id = client;
  return CacheChannel::Connect(options).value();
}

CacheSpec TestSpec() {
  CacheSpec spec;
  spec.model_id = "test-model";
  spec.model_revision = "r1";
  spec.layers = 3;
  spec.kv_heads = 2;
  spec.head_dim = 64;
  spec.rope = "theta=10000";
  return spec;
}

std::shared_ptr<const ResolvedSpec> Resolve(const CacheSpec& spec) {
  return std::make_shared<const ResolvedSpec>(ResolveSpec(spec).value());
}

Prompt::Prompt(const CacheSpec& spec, int64_t tokens, uint32_t seed) : spec_(spec) {
  token_ids_.resize(tokens);
  for (int64_t token = 0; token < tokens; ++token) {
    token_ids_[token] = static_cast<int32_t>((token * 7919 + seed) % 32000);
  }
  const size_t values = RowBytes() / ValueBytes(spec_.source_type);
  const auto fill = [&](float bias, uint32_t stream, std::vector<uint8_t>* out) {
    std::mt19937 random(seed * 1000 + stream);
    std::normal_distribution<float> normal(bias, 1.0f);
    out->resize(tokens * RowBytes());
    for (size_t i = 0; i < tokens * values; ++i) {
      const float value = normal(random);
      if (spec_.source_type == ValueType::kFp32) {
        std::memcpy(out->data() + 4 * i, &value, 4);
        continue;
      }
      const uint16_t bits =
          spec_.source_type == ValueType::kBf16 ? FloatToBf16(value) : FloatToFp16(value);
      std::memcpy(out->data() + 2 * i, &bits, 2);
    }
  };
  k_.resize(spec.layers);
  v_.resize(spec.layers);
  for (int layer = 0; layer < spec.layers; ++layer) {
    fill(2.0f, 2 * layer, &k_[layer]);
    fill(0.0f, 2 * layer + 1, &v_[layer]);
  }
}

size_t Prompt::RowBytes() const {
  return size_t{1} * spec_.kv_heads * spec_.head_dim * ValueBytes(spec_.source_type);
}

KvView Prompt::View(int layer, int64_t begin, int64_t end) const {
  return NhdView(spec_.source_type, k_[layer].data() + begin * RowBytes(),
                 v_[layer].data() + begin * RowBytes(), static_cast<int>(end - begin),
                 spec_.kv_heads, spec_.head_dim);
}

uint8_t* Prompt::MutableK(int layer, int64_t token, int head, int channel) {
  return k_[layer].data() + token * RowBytes() +
         (size_t{1} * head * spec_.head_dim + channel) * ValueBytes(spec_.source_type);
}

absl::StatusOr<StoreResult> StorePrompt(std::shared_ptr<CacheChannel> channel,
                                        std::shared_ptr<const ResolvedSpec> spec,
                                        const Prompt& prompt, const StoreOptions& options) {
  TURBOKV_ASSIGN_OR_RETURN(std::unique_ptr<PrefillWriter> writer,
                           PrefillWriter::Open(channel, spec, prompt.token_ids(), options));
  for (int layer = 0; layer < spec->spec.layers; ++layer) {
    TURBOKV_RETURN_IF_ERROR(
        writer->WriteLayer(layer, prompt.View(layer, options.first_token, prompt.tokens())));
  }
  return writer->Finish();
}

std::vector<uint8_t> ReferencePage(const ResolvedSpec& spec, const PageLayout& layout,
                                   const Prompt& prompt, int layer, int64_t begin, int64_t end) {
  std::vector<uint8_t> page(layout.page_bytes);
  PageIdentity identity;
  identity.layer = layer;
  identity.first_token = begin;
  identity.spec_id = spec.spec_id();
  const absl::Status status =
      reference::EncodePage(layout, identity, prompt.View(layer, begin, end), absl::MakeSpan(page));
  if (!status.ok()) ADD_FAILURE() << status;
  return page;
}

absl::StatusOr<std::vector<LayerCopy>> FetchAll(DecodeReader* reader, const FetchOptions& options) {
  std::vector<LayerCopy> layers;
  TURBOKV_RETURN_IF_ERROR(reader->Fetch(options, [&](FetchedLayer layer) {
    LayerCopy& copy = layers.emplace_back();
    for (const auto page : layer.pages) copy.pages.emplace_back(page.begin(), page.end());
    for (const auto page : layer.tail_pages) copy.tail_pages.emplace_back(page.begin(), page.end());
    return absl::OkStatus();
  }));
  return layers;
}

bool Eventually(const std::function<bool()>& condition) {
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

}  // namespace turbokv::testing
