// Pages in device memory, read where they lie by a client that maps them.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/device_match.h"
#include "client/share/slab_importer.h"
#include "server/device/fake_device.h"
#include "tests/integration/service_fixture.h"

namespace turbokv::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr PoolId kDevicePool = 1;

absl::Status ReadMapped(uint8_t* host, absl::Span<const uint8_t* const> device, size_t bytes_each) {
  for (const uint8_t* page : device) {
    std::memcpy(host, page, bytes_each);
    host += bytes_each;
  }
  return absl::OkStatus();
}

void ExpectOk(const absl::Status& status) { EXPECT_TRUE(status.ok()) << status; }

class DeviceSharingTest : public ::testing::Test {
 protected:
  DeviceSharingTest() { std::filesystem::create_directory(directory_); }
  ~DeviceSharingTest() override {
    memory_ = nullptr;
    channel_ = nullptr;
    server_ = nullptr;
    std::filesystem::remove_all(directory_);
  }

  void Start(size_t pool_bytes = size_t{16} << 20, bool share = true) {
    ServerConfig config = TestConfig();
    if (share) config.share_socket = directory_ + "/share.sock";
    config.gpu_memory.bytes = pool_bytes;
    auto device = std::make_unique<FakeDevice>();
    device_ = device.get();
    std::vector<std::unique_ptr<Device>> devices;
    devices.push_back(std::move(device));
    server_ = StartServer(config, std::move(devices));
    channel_ = ConnectTo(*server_);
  }

  absl::StatusOr<std::shared_ptr<DeviceMemory>> Open(const CacheChannel& channel) {
    return DeviceMemory::Open(channel, device_->info().uuid, MakeHostSlabImporter);
  }
  DeviceReader NewReader() {
    if (memory_ == nullptr) memory_ = Open(*channel_).value();
    return DeviceReader(channel_, spec_, memory_, ReadMapped);
  }

  void ExpectReference(DeviceReader* reader, const Prompt& prompt, int64_t blocks) {
    for (int layer = 0; layer < raw_spec_.layers; ++layer) {
      const auto found = reader->Layer(layer);
      ASSERT_OK(found);
      ASSERT_EQ(found->page_ids.size(), static_cast<size_t>(blocks));
      EXPECT_EQ(found->shape, spec_->layer_layouts[layer].shape);
      for (int64_t block = 0; block < blocks; ++block) {
        const auto expected = ReferencePage(*spec_, spec_->layer_layouts[layer], prompt, layer,
                                            block * kPageTokens, (block + 1) * kPageTokens);
        ASSERT_LT(found->page_ids[block], found->page_count);
        const uint8_t* const page =
            found->device_base + found->page_ids[block] * found->stride_bytes;
        EXPECT_TRUE(std::equal(expected.begin(), expected.end(), page))
            << "layer " << layer << ", block " << block;
      }
      ExpectOk(reader->CheckUnchanged(layer));
    }
  }
  CacheUsage Usage() { return server_->cache().Usage(); }
  int64_t BlocksIn(PoolId pool) { return Usage().pools[pool].blocks; }

  // The service's own view of a page that a match leases, to change it.
  uint8_t* PageOfServer(const Match& match, int64_t block, int layer) {
    const auto lease = *server_->cache().FindLease({}, match.lease_id);
    const auto page = lease->blocks[block].page(layer);
    return device_->Poke(const_cast<uint8_t*>(page.data()), page.size());
  }

  const std::string directory_ =
      absl::StrCat(::testing::TempDir(), "/turbokv_device_sharing_test.", getpid());
  const CacheSpec raw_spec_ = TestSpec();
  const std::shared_ptr<const ResolvedSpec> spec_ = Resolve(raw_spec_);
  FakeDevice* device_ = nullptr;  // the server's
  std::unique_ptr<Server> server_;
  std::shared_ptr<CacheChannel> channel_;
  std::shared_ptr<DeviceMemory> memory_;
};

TEST_F(DeviceSharingTest, PagesAreReadWhereTheyLie) {
  Start();
  const Prompt prompt(raw_spec_, 900, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DeviceReader reader = NewReader();
  const auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  EXPECT_EQ(match->blocks, 7);
  EXPECT_EQ(BlocksIn(kDevicePool), 7) << "nothing moved";
  ExpectReference(&reader, prompt, 7);

  const auto layer = reader.Layer(1);
  ASSERT_OK(layer);
  uint8_t* const of_server = PageOfServer(*match, 2, 1);
  const uint8_t* const mapped = layer->device_base + layer->page_ids[2] * layer->stride_bytes;
  EXPECT_NE(mapped, of_server) << "mapped a second time";
  of_server[500] ^= 1;
  EXPECT_EQ(mapped[500], of_server[500]);
}

TEST_F(DeviceSharingTest, NothingStoredIsNoError) {
  Start();
  DeviceReader reader = NewReader();
  const auto match = reader.Lookup(Prompt(raw_spec_, 300, 1).token_ids(), {});
  ASSERT_OK(match);
  EXPECT_EQ(match->blocks, 0);
  EXPECT_THAT(reader.Layer(0).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no lease")));
}

TEST_F(DeviceSharingTest, TheTailComesByGrpcUnderTheSameLease) {
  Start();
  const Prompt prompt(raw_spec_, 700, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DeviceReader reader = NewReader();
  const auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  ASSERT_TRUE(match->tail_found);
  DecodeReader streamed(channel_, spec_);
  ASSERT_OK(streamed.Lookup(prompt.token_ids(), {}));
  const auto expected = FetchAll(&streamed);
  ASSERT_OK(expected);
  int layers = 0;
  ASSERT_OK(reader.FetchTail([&](const FetchedLayer& layer) {
    EXPECT_TRUE(layer.pages.empty());
    const auto& pages = (*expected)[layer.layer].tail_pages;
    EXPECT_EQ(layer.tail_pages.size(), pages.size());
    for (size_t i = 0; i < pages.size(); ++i) EXPECT_EQ(layer.tail_pages[i], pages[i]);
    ++layers;
    return absl::OkStatus();
  }));
  EXPECT_EQ(layers, raw_spec_.layers);
  LookupOptions no_tail;
  no_tail.want_tail = false;
  ASSERT_OK(reader.Lookup(prompt.token_ids(), no_tail));
  EXPECT_THAT(reader.FetchTail([](const FetchedLayer&) { return absl::OkStatus(); }),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no tail")));
}

TEST_F(DeviceSharingTest, BlocksOfHostMemoryComeToTheDevice) {
  Start();
  const Prompt prompt(raw_spec_, 700, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  Digest fingerprint = spec_->fingerprint;
  const auto keys = BlockKeys(fingerprint, "", prompt.token_ids());
  const auto demoted =
      server_->cache().Lookup({}, fingerprint, keys, nullptr, absl::Seconds(1), kHostPool);
  ASSERT_OK(demoted);
  ASSERT_OK(server_->cache().Release({}, demoted->lease_id));
  ASSERT_EQ(BlocksIn(kDevicePool), 0);
  DeviceReader reader = NewReader();
  ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
  EXPECT_EQ(BlocksIn(kDevicePool), 5);
  ExpectReference(&reader, prompt, 5);
}

TEST_F(DeviceSharingTest, BlocksThatStayElsewhereAreCounted) {
  Start();
  const Prompt prompt(raw_spec_, 700, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  const auto keys = BlockKeys(spec_->fingerprint, "", prompt.token_ids());
  const auto held =
      server_->cache().Lookup({}, spec_->fingerprint, absl::MakeConstSpan(keys).first(3), nullptr,
                              absl::Seconds(60), kHostPool);
  ASSERT_OK(held);
  DeviceReader reader = NewReader();
  EXPECT_THAT(
      reader.Lookup(prompt.token_ids(), {}).status(),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("3 of 5 blocks are not in")));
  EXPECT_EQ(Usage().leases, 1) << "the holder's";
  ASSERT_OK(server_->cache().Release({}, held->lease_id));
  ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
  ExpectReference(&reader, prompt, 5);
}

TEST_F(DeviceSharingTest, LeasesAreHeldReleasedAndEndWithTheSession) {
  Start();
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DeviceReader reader = NewReader();
  ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
  EXPECT_EQ(Usage().leases, 1);
  ExpectOk(reader.Renew(absl::Seconds(60)));
  ExpectOk(reader.Release());
  EXPECT_EQ(Usage().leases, 0);
  EXPECT_THAT(reader.Renew(absl::Seconds(60)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no lease")));

  // As a worker that dies: the session ends, and nobody releases.
  auto own = Open(*channel_);
  ASSERT_OK(own);
  LookupOptions options;
  options.device_uuid = device_->info().uuid;
  options.share_session = (*own)->session_id();
  DecodeReader dying(channel_, spec_);
  const auto match = dying.Lookup(prompt.token_ids(), options);
  ASSERT_OK(match);
  EXPECT_FALSE(match->places.empty());
  EXPECT_EQ(Usage().leases, 1);
  *own = nullptr;
  EXPECT_TRUE(Eventually([&] { return Usage().leases == 0; }));
}

TEST_F(DeviceSharingTest, APageThatIsReplacedIsDataLoss) {
  Start();
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DeviceReader reader = NewReader();
  const auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  EXPECT_THAT(reader.CheckUnchanged(1),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("was not checked")));
  ASSERT_OK(reader.Layer(1));
  ExpectOk(reader.CheckUnchanged(1));
  PageHeader header;
  uint8_t* const page = PageOfServer(*match, 1, 1);
  std::memcpy(&header, page, sizeof(header));
  ++header.generation;
  std::memcpy(page, &header, sizeof(header));
  EXPECT_THAT(reader.CheckUnchanged(1),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("layer 1, block 1 changed")));
  ExpectOk(reader.Layer(1).status());  // a page that was recoded is as good
  ExpectOk(reader.CheckUnchanged(1));
}

TEST_F(DeviceSharingTest, PagesOfOthersAreNotTaken) {
  Start();
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DeviceReader reader = NewReader();
  const auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  uint8_t* const page = PageOfServer(*match, 1, 2);
  PageHeader original;
  std::memcpy(&original, page, sizeof(original));
  const auto expect_refused = [&](auto change, const char* what) {
    PageHeader header = original;
    change(&header);
    std::memcpy(page, &header, sizeof(header));
    EXPECT_THAT(reader.Layer(2).status(),
                StatusIs(absl::StatusCode::kDataLoss,
                         HasSubstr("layer 2, block 1 is not what was asked for")))
        << what;
  };
  expect_refused([](PageHeader* header) { header->spec_id ^= 1; }, "spec");
  expect_refused([](PageHeader* header) { header->layer = 1; }, "layer");
  expect_refused([](PageHeader* header) { header->first_token = 0; }, "position");
  expect_refused([](PageHeader* header) { header->page_bytes += 128; }, "size");
  expect_refused([](PageHeader* header) { header->k_codec ^= 1; }, "codec");
  expect_refused([](PageHeader* header) { header->tokens = 1; }, "tokens");
  expect_refused([](PageHeader* header) { header->magic = 0; }, "magic");
  std::memcpy(page, &original, sizeof(original));
  ExpectReference(&reader, prompt, 2);
}

// A slab that goes to another tenant gets other memory: who still maps the old one sees nothing.
TEST_F(DeviceSharingTest, ASlabOfAnotherTenantIsOtherMemory) {
  Start(size_t{2} << 20);
  const Prompt prompt(raw_spec_, 1000, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DeviceReader reader = NewReader();
  const auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  const auto layer = reader.Layer(0);
  ASSERT_OK(layer);
  const uint8_t* const page = layer->device_base + layer->page_ids[0] * layer->stride_bytes;
  std::vector<uint8_t> before(page, page + 4096);
  ASSERT_OK(server_->cache().Release({}, match->lease_id));  // as if it had expired

  const auto others = ConnectTo(*server_, "other");
  for (uint32_t seed = 2; seed <= 12; ++seed) {
    ASSERT_OK(StorePrompt(others, spec_, Prompt(raw_spec_, 1000, seed)));
  }
  EXPECT_TRUE(std::equal(before.begin(), before.end(), page));
  // Another reader of this process maps what the slabs are now: the first one is told.
  absl::Status unchanged;
  for (uint32_t seed = 13; seed <= 24 && unchanged.ok(); ++seed) {
    const Prompt again(raw_spec_, 1000, seed);
    ASSERT_OK(StorePrompt(channel_, spec_, again));
    DeviceReader another = NewReader();
    ASSERT_OK(another.Lookup(again.token_ids(), {}));
    ExpectReference(&another, again, 7);
    unchanged = reader.CheckUnchanged(0);
  }
  EXPECT_THAT(unchanged, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("the lease has ended")));
}

TEST_F(DeviceSharingTest, ReadersShareOneMemoryWhileOthersStore) {
  Start();
  memory_ = Open(*channel_).value();
  std::vector<Prompt> prompts;
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    prompts.emplace_back(raw_spec_, 700, seed);
    ASSERT_OK(StorePrompt(channel_, spec_, prompts.back()));
  }
  std::vector<std::thread> threads;
  for (const Prompt& prompt : prompts) {
    threads.emplace_back([&] {
      DeviceReader reader(channel_, spec_, memory_, ReadMapped);
      for (int round = 0; round < 5; ++round) {
        ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
        ExpectReference(&reader, prompt, 5);
      }
    });
  }
  for (uint32_t seed = 5; seed <= 12; ++seed) {
    ExpectOk(StorePrompt(channel_, spec_, Prompt(raw_spec_, 700, seed)).status());
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(DeviceSharingTest, WrongDevicesAndServersThatShareNothingAreNamed) {
  Start();
  EXPECT_THAT(DeviceMemory::Open(*channel_, "GPU-another", MakeHostSlabImporter).status(),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("GPU-another"), HasSubstr(device_->info().uuid))));
  const auto importer_fails = [](const SlabGeometry&) {
    return absl::StatusOr<std::unique_ptr<SlabImporter>>(absl::UnavailableError("no GPU"));
  };
  EXPECT_THAT(DeviceMemory::Open(*channel_, device_->info().uuid, importer_fails).status(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no GPU")));
}

TEST_F(DeviceSharingTest, AServerThatSharesNothingIsNamed) {
  Start(size_t{16} << 20, /*share=*/false);
  EXPECT_THAT(Open(*channel_).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("share_socket")));
}

TEST_F(DeviceSharingTest, WhatIsMappedOutlivesTheServer) {
  Start();
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DeviceReader reader = NewReader();
  ASSERT_OK(reader.Lookup(prompt.token_ids(), {}));
  ASSERT_OK(reader.Layer(0));
  server_ = nullptr;
  ExpectReference(&reader, prompt, 2);
  EXPECT_TRUE(Eventually([&] { return !memory_->alive(); }));
  EXPECT_THAT(reader.Lookup(prompt.token_ids(), {}).status(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("has gone")));
}

}  // namespace
}  // namespace turbokv::testing
