// Stores a made-up sequence in turbokvd and fetches it back: store_and_fetch HOST:PORT
#include <iostream>
#include <memory>
#include <vector>

#include "client/decode_reader.h"
#include "client/prefill_writer.h"
#include "client/sequence_cache.h"

absl::Status StoreAndFetch(const std::string& address) {
  turbokv::CacheSpec model;
  model.model_id = "made-up";
  model.layers = 2;
  model.kv_heads = 2;
  model.head_dim = 128;
  const auto spec = std::make_shared<const turbokv::ResolvedSpec>(*turbokv::ResolveSpec(model));
  const std::vector<int32_t> tokens(300, 7);
  const std::vector<uint16_t> ones(300 * 2 * 128, 0x3f80);  // bf16, [tokens][kv_heads][head_dim]

  auto channel = turbokv::CacheChannel::Connect({address});
  if (!channel.ok()) return channel.status();
  auto writer = turbokv::PrefillWriter::Open(*channel, spec, tokens, {});
  if (!writer.ok()) return writer.status();
  for (int layer = 0; layer < model.layers; ++layer) {
    const auto values =
        turbokv::NhdView(turbokv::ValueType::kBf16, ones.data(), ones.data(), 300, 2, 128);
    if (auto status = (*writer)->WriteLayer(layer, values); !status.ok()) return status;
  }
  auto stored = (*writer)->Finish();
  if (!stored.ok()) return stored.status();

  turbokv::DecodeReader reader(*channel, spec);
  turbokv::SequenceCache cache(spec, nullptr);
  if (auto match = reader.Lookup(tokens, {}); !match.ok()) return match.status();
  auto status = reader.Fetch(
      {}, [&](turbokv::FetchedLayer layer) { return cache.AdoptLayer(std::move(layer)); });
  if (!status.ok()) return status;
  std::cout << "blocks=" << stored->stored_blocks << " tokens=" << cache.tokens(1) << "\n";
  return absl::OkStatus();
}

int main(int argc, char** argv) {
  const absl::Status status = StoreAndFetch(argc > 1 ? argv[1] : "127.0.0.1:7070");
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
