// Stores over NCCL channels: the same pages as by gRPC, and nothing left of what fails.
#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "tests/integration/nccl_data_fixture.h"
#include "turbokv/v1/admin.grpc.pb.h"

namespace turbokv::testing {
namespace {

using NcclStoreTest = NcclDataTest;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr PoolId kFirstDevice = 1;

TEST_F(NcclStoreTest, StoresWhatGrpcStores) {
  Start();
  const auto link = Link();
  EXPECT_EQ(link->max_transfer_bytes(), kMaxTransferBytes);
  const Prompt prompt(raw_spec_, 20 * kPageTokens + 70, 1);  // more than a transfer a layer
  const auto stored = Store(link, prompt);
  ASSERT_OK(stored);
  EXPECT_EQ(stored->stored_blocks, 20);
  EXPECT_TRUE(stored->stored_tail);
  EXPECT_EQ(stored->sent_bytes, stored->raw_bytes);
  EXPECT_EQ(BlocksIn(kFirstDevice), 20);
  ExpectStored(prompt);
  DecodeReader reader(channel_, spec_);
  EXPECT_TRUE(reader.Lookup(prompt.token_ids(), {})->tail_found);
  ExpectAllFreed();
}

// What `turbokv` and monitoring see: the version, or why there are no channels.
v1::DescribeResponse Describe(const CacheChannel& channel) {
  grpc::ClientContext context;
  v1::DescribeResponse response;
  const auto stub = v1::AdminService::NewStub(channel.grpc_channel());
  EXPECT_TRUE(stub->Describe(&context, {}, &response).ok());
  return response;
}

TEST_F(NcclStoreTest, DescribeTellsTheVersion) {
  Start();
  EXPECT_EQ(Describe(*channel_).nccl_version(), "2.28.9");
  EXPECT_EQ(Describe(*channel_).nccl_unavailable(), "");
}

TEST(NcclOffTest, DescribeTellsWhyThereAreNoChannels) {
  const auto reason_of = [](const ServerConfig& config, bool gpu) {
    std::vector<std::unique_ptr<Device>> devices;
    if (gpu) devices.push_back(std::make_unique<FakeDevice>());
    const auto server = StartServer(config, std::move(devices));
    const v1::DescribeResponse description = Describe(*ConnectTo(*server));
    EXPECT_EQ(description.nccl_version(), "");
    return description.nccl_unavailable();
  };
  ServerConfig config = TestConfig();
  EXPECT_THAT(reason_of(config, false), HasSubstr("no GPU memory holds pages"));
  config.gpu_memory.bytes = size_t{16} << 20;
  EXPECT_THAT(reason_of(config, true), HasSubstr("has no CUDA"));
  config.nccl = false;
  EXPECT_THAT(reason_of(config, true), HasSubstr("off (setting nccl)"));
}

TEST_F(NcclStoreTest, StoresContinuationsAndWhatIsThereAlready) {
  Start();
  const auto link = Link();
  const Prompt prompt(raw_spec_, 8 * kPageTokens, 1);
  StoreOptions options;
  options.store_tail = false;
  const Prompt shorter(raw_spec_, 3 * kPageTokens, 1);
  ASSERT_OK(Store(link, shorter, options));
  const auto again = Store(link, prompt, options);
  ASSERT_OK(again);
  EXPECT_EQ(again->present_blocks, 3);
  EXPECT_EQ(again->stored_blocks, 5);
  ExpectStored(prompt);
  const Prompt longer(raw_spec_, 10 * kPageTokens, 1);
  options.first_token = 8 * kPageTokens;
  ASSERT_OK(Store(link, longer, options));
  ExpectStored(longer);
}

TEST_F(NcclStoreTest, StoresOnTheChannelsOwnGpu) {
  Start(2);
  const auto link = Link();
  for (uint32_t model = 0; model < 4; ++model) {
    const int64_t before = BlocksIn(kFirstDevice);
    ASSERT_OK(Store(link, Prompt(raw_spec_, 512, model)));
    EXPECT_EQ(BlocksIn(kFirstDevice), before + 4);
  }
}

TEST_F(NcclStoreTest, TwoStoresShareAChannel) {
  Start();
  const auto link = Link();
  constexpr int kStores = 6;
  std::vector<std::thread> threads;
  std::vector<absl::Status> statuses(kStores);
  for (int i = 0; i < kStores; ++i) {
    threads.emplace_back([&, i] {
      statuses[i] = Store(link, Prompt(raw_spec_, 9 * kPageTokens, 100 + i)).status();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
  for (int i = 0; i < kStores; ++i) ExpectStored(Prompt(raw_spec_, 9 * kPageTokens, 100 + i));
  ExpectAllFreed();
}

TEST_F(NcclStoreTest, ABadValueIsNamedAndNothingRemains) {
  Start();
  const auto link = Link();
  Prompt prompt(raw_spec_, 6 * kPageTokens, 1);
  const uint16_t infinity = 0x7f80;  // bf16
  std::memcpy(prompt.MutableK(1, 300, 1, 17), &infinity, sizeof(infinity));
  EXPECT_THAT(
      Store(link, prompt).status(),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("layer 1"), HasSubstr("K of token 300, head 1, channel 17"))));
  ExpectAllFreed();
  EXPECT_EQ(server_->cache().Usage().used_bytes, 0u);
  EXPECT_FALSE(link->channel()->status().ok()) << "a failed store ends its channel";
  EXPECT_TRUE(Eventually([&] { return server_->nccl_service().channels().open_channels() == 0; }));
  ASSERT_OK(Store(Link(), Prompt(raw_spec_, 6 * kPageTokens, 2)));
}

// Pages that the worker has encoded, layer after layer in memory.
std::vector<std::vector<uint8_t>> EncodeAtSource(const ResolvedSpec& spec, const Prompt& prompt) {
  std::vector<std::vector<uint8_t>> layers;
  for (int layer = 0; layer < spec.spec.layers; ++layer) {
    std::vector<uint8_t>& pages = layers.emplace_back();
    for (int64_t begin = 0; begin < prompt.tokens(); begin += kPageTokens) {
      const auto page =
          ReferencePage(spec, spec.layer_layouts[layer], prompt, layer, begin, begin + kPageTokens);
      pages.insert(pages.end(), page.begin(), page.end());
    }
  }
  return layers;
}

class NcclPagesTest : public NcclDataTest {
 protected:
  absl::StatusOr<StoreResult> StorePages(std::shared_ptr<NcclLink> link, const Prompt& prompt,
                                         const std::vector<std::vector<uint8_t>>& layers) {
    auto store = NcclPrefill::OpenPages(channel_, std::move(link), spec_, prompt.token_ids(), {});
    if (!store.ok()) return store.status();
    for (int layer = 0; layer < raw_spec_.layers; ++layer) {
      const absl::Status written = (*store)->WritePages(layer, layers[layer].data());
      if (!written.ok()) return written;
    }
    return (*store)->Finish();
  }
};

TEST_F(NcclPagesTest, TakesPagesThatTheWorkerHasEncoded) {
  Start();
  const auto link = Link();
  const Prompt prompt(raw_spec_, 60 * kPageTokens, 1);  // more than a transfer a layer
  const auto stored = StorePages(link, prompt, EncodeAtSource(*spec_, prompt));
  ASSERT_OK(stored);
  EXPECT_EQ(stored->stored_blocks, 60);
  EXPECT_EQ(BlocksIn(kFirstDevice), 60);
  ExpectStored(prompt);
  ExpectAllFreed();
}

TEST_F(NcclPagesTest, NamesADamagedPage) {
  Start();
  const Prompt prompt(raw_spec_, 6 * kPageTokens, 1);
  auto layers = EncodeAtSource(*spec_, prompt);
  layers[1][4 * spec_->layer_layouts[1].page_bytes + 2000] ^= 1;
  EXPECT_THAT(StorePages(Link(), prompt, layers).status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("layer 1, block 4")));
  ExpectAllFreed();
  EXPECT_EQ(server_->cache().Usage().used_bytes, 0u);
}

TEST_F(NcclPagesTest, NamesAPageOfAnotherPlace) {
  Start();
  const Prompt prompt(raw_spec_, 6 * kPageTokens, 1);
  auto layers = EncodeAtSource(*spec_, prompt);
  const size_t page_bytes = spec_->layer_layouts[1].page_bytes;
  std::swap_ranges(layers[1].begin() + 2 * page_bytes, layers[1].begin() + 3 * page_bytes,
                   layers[1].begin() + 3 * page_bytes);
  EXPECT_THAT(StorePages(Link(), prompt, layers).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("layer 1, block 2"),
                             HasSubstr("first_token is 384, expected 256"))));
  ExpectAllFreed();
}

}  // namespace
}  // namespace turbokv::testing
