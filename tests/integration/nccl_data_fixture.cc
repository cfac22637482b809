#include "tests/integration/nccl_data_fixture.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "tests/unit/client/nccl/nccl_testing.h"

namespace turbokv::testing {

absl::StatusOr<std::unique_ptr<ChannelStream>> FakeDeviceStreams::MakeStream(int device_index) {
  auto stream = std::make_unique<fake_nccl::FakeChannelStream>();
  stream->stream()->device = devices_[device_index];
  stream->stream()->translate = [](void* device, void* address, size_t bytes) -> void* {
    return static_cast<FakeDevice*>(device)->Poke(static_cast<uint8_t*>(address), bytes);
  };
  return std::unique_ptr<ChannelStream>(std::move(stream));
}

void NcclDataTest::Start(int devices, size_t pool_bytes, absl::Duration transfer_timeout) {
  ServerConfig config = TestConfig();
  config.gpu_memory.bytes = pool_bytes;
  std::vector<std::unique_ptr<Device>> owned;
  for (int i = 0; i < devices; ++i) {
    FakeDeviceOptions options;
    options.index = i;
    options.uuid = absl::StrCat("GPU-0000000", i);
    auto device = std::make_unique<FakeDevice>(options);
    devices_.push_back(device.get());
    streams_.Add(device.get());
    owned.push_back(std::move(device));
  }
  NcclOptions nccl;
  nccl.streams = &streams_;
  nccl.library = nccl_testing::FakeLibrary();
  nccl.lanes = {kMaxTransferBytes, kLanes};
  nccl.transfer_timeout = transfer_timeout;
  auto server = Server::Start(config, std::move(owned), nccl);
  ASSERT_OK(server);
  server_ = *std::move(server);
  channel_ = ConnectTo(*server_);
}

void NcclDataTest::TearDown() { server_.reset(); }

std::shared_ptr<NcclLink> NcclDataTest::Link(const std::string& peer_name) {
  NcclLinkOptions options;
  options.api = nccl_testing::FakeApi();
  options.streams = nccl_testing::FakeStreams();
  options.device_uuid = "GPU-worker";
  options.peer_name = peer_name;
  options.connect_timeout = absl::Seconds(10);
  auto link = NcclLink::Open(channel_, options);
  if (!link.ok()) {
    ADD_FAILURE() << link.status();
    std::abort();
  }
  return *std::move(link);
}

uint32_t NcclDataTest::LanesInUse() {
  uint32_t lanes = 0;
  for (const NcclDevice& device : server_->nccl_service().environment().devices) {
    lanes += device.lanes->lanes_in_use();
  }
  return lanes;
}

void NcclDataTest::ExpectAllFreed() {
  const absl::Time deadline = absl::Now() + absl::Seconds(5);
  while (absl::Now() < deadline && (server_->cache().Usage().pending_entries > 0 ||
                                    LanesInUse() > 0 || server_->metrics().active_stores() > 0)) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_EQ(server_->cache().Usage().pending_entries, 0);
  EXPECT_EQ(LanesInUse(), 0u);
  EXPECT_EQ(server_->metrics().active_stores(), 0);
}

absl::StatusOr<StoreResult> NcclDataTest::Store(std::shared_ptr<NcclLink> link,
                                                const Prompt& prompt, const StoreOptions& options) {
  TURBOKV_ASSIGN_OR_RETURN(
      const std::unique_ptr<NcclPrefill> store,
      NcclPrefill::Open(channel_, std::move(link), spec_, prompt.token_ids(), options));
  const int64_t run_end = options.first_token + store->run_blocks() * kPageTokens;
  for (int layer = 0; layer < raw_spec_.layers; ++layer) {
    const KvView run = prompt.View(layer, options.first_token, run_end);
    TURBOKV_RETURN_IF_ERROR(store->WriteLayer(
        layer, static_cast<const uint8_t*>(run.k), static_cast<const uint8_t*>(run.v),
        prompt.View(layer, run_end, run_end + store->rest_tokens())));
  }
  return store->Finish();
}

absl::StatusOr<std::vector<LayerCopy>> NcclDataTest::Fetch(NcclLink* link, const Prompt& prompt,
                                                           const FetchOptions& options) {
  DecodeReader reader(channel_, spec_);
  LookupOptions lookup;
  lookup.device_uuid = link->service_device_uuid();
  TURBOKV_ASSIGN_OR_RETURN(const Match match, reader.Lookup(prompt.token_ids(), lookup));
  std::vector<std::vector<uint8_t>> memory;
  std::vector<uint8_t*> device_layers;
  for (const PageLayout& layout : spec_->layer_layouts) {
    memory.emplace_back(match.blocks * layout.page_bytes);
    device_layers.push_back(memory.back().data());
  }
  std::vector<LayerCopy> layers(memory.size());
  TURBOKV_RETURN_IF_ERROR(
      FetchOverNccl(channel_, link, spec_, match, options, device_layers, [&](FetchedLayer layer) {
        for (const auto page : layer.tail_pages) {
          layers[layer.layer].tail_pages.emplace_back(page.begin(), page.end());
        }
        return absl::OkStatus();
      }));
  for (size_t layer = 0; layer < memory.size(); ++layer) {
    const size_t page_bytes = spec_->layer_layouts[layer].page_bytes;
    for (int64_t block = 0; block < match.blocks; ++block) {
      const auto begin = memory[layer].begin() + block * page_bytes;
      layers[layer].pages.emplace_back(begin, begin + page_bytes);
    }
  }
  return layers;
}

absl::StatusOr<std::vector<LayerCopy>> NcclDataTest::FetchByGrpc(const Prompt& prompt) {
  DecodeReader reader(channel_, spec_);
  TURBOKV_RETURN_IF_ERROR(reader.Lookup(prompt.token_ids(), {}).status());
  return FetchAll(&reader);
}

void NcclDataTest::ExpectStored(const Prompt& prompt) {
  DecodeReader reader(channel_, spec_);
  const absl::StatusOr<Match> match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  ASSERT_EQ(match->blocks, prompt.tokens() / kPageTokens);
  const absl::StatusOr<std::vector<LayerCopy>> layers = FetchAll(&reader);
  ASSERT_OK(layers);
  for (int layer = 0; layer < raw_spec_.layers; ++layer) {
    for (int64_t block = 0; block < match->blocks; ++block) {
      const int64_t begin = block * kPageTokens;
      EXPECT_EQ((*layers)[layer].pages[block],
                ReferencePage(*spec_, spec_->layer_layouts[layer], prompt, layer, begin,
                              begin + kPageTokens))
          << "layer " << layer << ", block " << block;
    }
  }
}

}  // namespace turbokv::testing
