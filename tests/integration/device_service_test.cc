// The service with pages in device memory: what is stored comes back byte for byte, wherever it
// lies and whatever the device does.
#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/impl/codegen/client_unary_call.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/device/fake_device.h"
#include "tests/integration/service_fixture.h"

namespace turbokv::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr PoolId kFirstDevice = 1;
constexpr PoolId kSecondDevice = 2;

// What a readiness probe hears; the health service's messages are no package of Debian's.
bool IsServing(const CacheChannel& channel) {
  const grpc::internal::RpcMethod method("/grpc.health.v1.Health/Check",
                                         grpc::internal::RpcMethod::NORMAL_RPC);
  grpc::ClientContext context;
  const grpc::Slice nothing;
  const grpc::ByteBuffer everything(&nothing, 1);  // an empty message: the server as a whole
  grpc::ByteBuffer response;
  const grpc::Status status = grpc::internal::BlockingUnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>(
      channel.grpc_channel().get(), method, &context, everything, &response);
  grpc::Slice bytes;
  if (!status.ok() || !response.DumpToSingleSlice(&bytes).ok() || bytes.size() != 2) return false;
  constexpr uint8_t kServing[] = {0x08, 0x01};  // field 1, SERVING
  return std::equal(bytes.begin(), bytes.end(), kServing);
}

class DeviceServiceTest : public ::testing::Test {
 protected:
  // A server with `count` devices, each with a pool of `pool_bytes`.
  void Start(int count = 1, size_t pool_bytes = size_t{16} << 20) {
    ServerConfig config = TestConfig();
    config.gpu_memory.bytes = pool_bytes;
    std::vector<std::unique_ptr<Device>> devices;
    for (int i = 0; i < count; ++i) {
      FakeDeviceOptions options;
      options.index = i;
      options.uuid = absl::StrCat("GPU-0000000", i);
      auto device = std::make_unique<FakeDevice>(options);
      devices_.push_back(device.get());
      devices.push_back(std::move(device));
    }
    server_ = StartServer(config, std::move(devices));
    channel_ = ConnectTo(*server_);
  }

  int64_t BlocksIn(PoolId pool) { return server_->cache().Usage().pools[pool].blocks; }

  absl::StatusOr<StoreResult> Store(const Prompt& prompt) {
    return StorePrompt(channel_, spec_, prompt);
  }

  // Looks the prompt up and compares every page with the reference's.
  void ExpectStored(const Prompt& prompt) {
    DecodeReader reader(channel_, spec_);
    const absl::StatusOr<Match> match = reader.Lookup(prompt.token_ids(), {});
    ASSERT_OK(match);
    ASSERT_EQ(match->blocks, prompt.tokens() / kPageTokens);
    EXPECT_TRUE(match->tail_found);
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

  const CacheSpec raw_spec_ = TestSpec();
  const std::shared_ptr<const ResolvedSpec> spec_ = Resolve(raw_spec_);
  std::vector<FakeDevice*> devices_;  // the server's
  std::unique_ptr<Server> server_;
  std::shared_ptr<CacheChannel> channel_;
};

TEST_F(DeviceServiceTest, KeepsBlocksInDeviceMemory) {
  Start();
  const Prompt prompt(raw_spec_, 900, 1);
  const auto stored = Store(prompt);
  ASSERT_OK(stored);
  EXPECT_EQ(stored->stored_blocks, 7);
  EXPECT_TRUE(stored->stored_tail);
  EXPECT_EQ(BlocksIn(kFirstDevice), 7);
  EXPECT_EQ(BlocksIn(kHostPool), 0);
  ExpectStored(prompt);
}

TEST_F(DeviceServiceTest, MeasuresTheErrorOfPagesThatTheDeviceEncoded) {
  Start();
  ASSERT_OK(Store(Prompt(raw_spec_, 300, 1)));
  const Codec codec = spec_->layer_layouts[0].shape.k_codec;
  const CodecTotals totals = server_->metrics().Totals(PageTensor::kK, codec);
  EXPECT_EQ(totals.sampled_pages, 1) << "one a store";
  EXPECT_GT(totals.relative_mse_sum, 0);
  EXPECT_LT(totals.relative_mse_sum, 0.05);
}

TEST_F(DeviceServiceTest, TakesEncodedPagesIntoDeviceMemory) {
  Start();
  const Prompt prompt(raw_spec_, 256, 1);
  auto writer = PrefillWriter::OpenPages(channel_, spec_, prompt.token_ids(), {});
  ASSERT_OK(writer);
  std::vector<std::vector<uint8_t>> pages;
  for (int layer = 0; layer < raw_spec_.layers; ++layer) {
    for (int64_t block = 0; block < 2; ++block) {
      pages.push_back(ReferencePage(*spec_, spec_->layer_layouts[layer], prompt, layer,
                                    block * kPageTokens, (block + 1) * kPageTokens));
    }
  }
  for (int layer = 0; layer < raw_spec_.layers; ++layer) {
    for (int64_t block = 0; block < 2; ++block) {
      ASSERT_OK((*writer)->WritePage(layer, block, pages[2 * layer + block]));
    }
  }
  ASSERT_OK((*writer)->Finish());
  EXPECT_EQ(BlocksIn(kFirstDevice), 2);
  DecodeReader reader(channel_, spec_);
  ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
  const auto layers = FetchAll(&reader);
  ASSERT_OK(layers);
  for (int layer = 0; layer < raw_spec_.layers; ++layer) {
    EXPECT_EQ((*layers)[layer].pages[1], pages[2 * layer + 1]);
  }
}

TEST_F(DeviceServiceTest, SpecsThatNoDeviceTakesStayInHostMemory) {
  Start();
  CacheSpec raw_spec = raw_spec_;
  raw_spec.head_dim = 80;
  const Prompt prompt(raw_spec, 256, 1);
  ASSERT_OK(StorePrompt(channel_, Resolve(raw_spec), prompt));
  EXPECT_EQ(BlocksIn(kFirstDevice), 0);
  EXPECT_EQ(BlocksIn(kHostPool), 2);
}

TEST_F(DeviceServiceTest, ASpecsBlocksStayTogetherAndSpecsSpread) {
  Start(2);
  for (int model = 0; model < 16; ++model) {
    CacheSpec raw_spec = raw_spec_;
    raw_spec.model_id = absl::StrCat("model ", model);
    const auto spec = Resolve(raw_spec);
    const int64_t before = BlocksIn(kFirstDevice);
    for (uint32_t seed = 1; seed <= 2; ++seed) {
      ASSERT_OK(StorePrompt(channel_, spec, Prompt(raw_spec, 256, seed)));
    }
    const int64_t added = BlocksIn(kFirstDevice) - before;
    EXPECT_TRUE(added == 0 || added == 4) << added;
  }
  EXPECT_GT(BlocksIn(kFirstDevice), 0);
  EXPECT_GT(BlocksIn(kSecondDevice), 0);
}

TEST_F(DeviceServiceTest, OlderBlocksMoveToHostMemoryAndAreStillFound) {
  Start(1, size_t{2} << 20);
  std::vector<Prompt> prompts;
  for (uint32_t seed = 1; seed <= 12; ++seed) {
    prompts.emplace_back(raw_spec_, 1000, seed);
    ASSERT_OK(Store(prompts.back()));
  }
  EXPECT_GT(BlocksIn(kHostPool), 0);
  EXPECT_GT(BlocksIn(kFirstDevice), 0);
  EXPECT_EQ(server_->cache().Usage().evicted_blocks, 0);
  for (const Prompt& prompt : prompts) ExpectStored(prompt);
}

TEST_F(DeviceServiceTest, WhatLeasesLeaveNoRoomForGoesToHostMemory) {
  Start(1, size_t{2} << 20);
  std::vector<std::unique_ptr<DecodeReader>> readers;
  for (uint32_t seed = 1; seed <= 8; ++seed) {
    const Prompt prompt(raw_spec_, 1000, seed);
    ASSERT_OK(Store(prompt));
    readers.push_back(std::make_unique<DecodeReader>(channel_, spec_));
    ASSERT_OK(readers.back()->Lookup(prompt.token_ids(), {}));
  }
  EXPECT_GT(BlocksIn(kHostPool), 0);
  EXPECT_EQ(server_->cache().Usage().blocks, 8 * 7);
}

TEST_F(DeviceServiceTest, ABadValueIsNamedAndNothingRemains) {
  Start();
  Prompt prompt(raw_spec_, 700, 1);
  const uint16_t infinity = 0x7f80;  // bf16
  std::memcpy(prompt.MutableK(1, 300, 1, 17), &infinity, sizeof(infinity));
  EXPECT_THAT(
      Store(prompt).status(),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("layer 1"), HasSubstr("K of token 300, head 1, channel 17"))));
  EXPECT_TRUE(Eventually([&] { return server_->cache().Usage().used_bytes == 0; }));
}

TEST_F(DeviceServiceTest, ADamagedPageIsNeverDelivered) {
  Start();
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(Store(prompt));
  DecodeReader reader(channel_, spec_);
  const auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  {
    const auto lease = *server_->cache().FindLease({}, match->lease_id);
    const auto page = lease->blocks[1].page(2);
    devices_[0]->Poke(const_cast<uint8_t*>(page.data()) + 1000, 1)[0] ^= 4;
  }
  EXPECT_THAT(FetchAll(&reader).status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("layer 2, block 1")));
  EXPECT_EQ(reader.Lookup(prompt.token_ids(), {})->blocks, 1);
}

TEST_F(DeviceServiceTest, AnExhaustedStagingRingHoldsTheSenderBack) {
  Start();
  devices_[0]->faults().Hold();
  const Prompt prompt(raw_spec_, 40 * kPageTokens, 1);  // 120 pages for 32 slots
  absl::StatusOr<StoreResult> stored = absl::UnknownError("not done");
  std::thread writer([&] { stored = Store(prompt); });
  devices_[0]->faults().AwaitHeld(1);
  absl::SleepFor(absl::Milliseconds(200));
  EXPECT_EQ(server_->cache().Usage().pending_entries, 41) << "it waits";
  devices_[0]->faults().Release();
  writer.join();
  ASSERT_OK(stored);
  ExpectStored(prompt);
}

TEST_F(DeviceServiceTest, AnErrorOfTheDeviceFailsOnlyItsStore) {
  Start();
  devices_[0]->faults().FailCall(2, absl::InternalError("an ECC error, contained"));
  EXPECT_FALSE(Store(Prompt(raw_spec_, 700, 1)).ok());
  EXPECT_TRUE(Eventually([&] { return server_->cache().Usage().used_bytes == 0; }));
  const Prompt next(raw_spec_, 700, 2);
  ASSERT_OK(Store(next));
  ExpectStored(next);
}

TEST_F(DeviceServiceTest, ABrokenDeviceIsMissesAndNotReadyAndTheRestIsServed) {
  Start();
  const Prompt lost(raw_spec_, 700, 1);
  ASSERT_OK(Store(lost));
  CacheSpec host_spec = raw_spec_;
  host_spec.head_dim = 80;
  const Prompt kept(host_spec, 300, 1);
  ASSERT_OK(StorePrompt(channel_, Resolve(host_spec), kept));

  EXPECT_TRUE(IsServing(*channel_));
  devices_[0]->faults().Break(absl::InternalError("unspecified launch failure"));
  EXPECT_TRUE(Eventually([&] { return BlocksIn(kFirstDevice) == 0; }));
  EXPECT_TRUE(Eventually([&] { return !IsServing(*channel_); }));
  DecodeReader reader(channel_, spec_);
  EXPECT_EQ(reader.Lookup(lost.token_ids(), {})->blocks, 0);
  ASSERT_OK(Store(lost));
  EXPECT_EQ(BlocksIn(kFirstDevice), 0);
  ExpectStored(lost);
  DecodeReader of_host(channel_, Resolve(host_spec));
  EXPECT_EQ(of_host.Lookup(kept.token_ids(), {})->blocks, 2);
}

TEST_F(DeviceServiceTest, ADeviceThatBreaksInTheMiddleOfAStoreLeavesNothing) {
  Start();
  devices_[0]->faults().Hold();
  absl::StatusOr<StoreResult> stored = absl::UnknownError("not done");
  std::thread writer([&] { stored = Store(Prompt(raw_spec_, 40 * kPageTokens, 1)); });
  devices_[0]->faults().AwaitHeld(1);
  devices_[0]->faults().Break(absl::InternalError("unspecified launch failure"));
  devices_[0]->faults().Release();
  writer.join();
  EXPECT_FALSE(stored.ok());
  EXPECT_TRUE(Eventually([&] { return server_->cache().Usage().used_bytes == 0; }));
  EXPECT_TRUE(Eventually([&] { return server_->cache().Usage().pools[kFirstDevice].lost; }));
}

TEST(DeviceStartTest, TooLittleDeviceMemoryIsNamed) {
  ServerConfig config = TestConfig();
  config.gpu_memory.bytes = size_t{2} << 30;
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(std::make_unique<FakeDevice>());  // has 1 GiB
  const auto server = Server::Start(config, std::move(devices));
  EXPECT_THAT(server.status(), StatusIs(absl::StatusCode::kResourceExhausted,
                                        AllOf(HasSubstr("GPU 0"), HasSubstr("2147483648"),
                                              HasSubstr("1073741824"))));
}

}  // namespace
}  // namespace turbokv::testing
