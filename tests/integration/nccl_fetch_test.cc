// Fetches over NCCL channels: the same bytes as by gRPC, and a channel that goes on after errors.
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/nccl_data_fixture.h"

namespace turbokv::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using NcclFetchTest = NcclDataTest;

TEST_F(NcclFetchTest, FetchesWhatGrpcFetches) {
  Start();
  const auto link = Link();
  const Prompt prompt(raw_spec_, 40 * kPageTokens + 70, 1);  // more than a transfer
  ASSERT_OK(Store(link, prompt));
  const auto by_nccl = Fetch(link.get(), prompt);
  ASSERT_OK(by_nccl);
  const auto by_grpc = FetchByGrpc(prompt);
  ASSERT_OK(by_grpc);
  EXPECT_EQ(*by_nccl, *by_grpc);
  EXPECT_EQ((*by_nccl)[0].tail_pages.size(), 2u);
  ExpectAllFreed();
}

TEST_F(NcclFetchTest, MovesBlocksFromHostMemoryFirst) {
  Start(1, size_t{2} << 20);
  const auto link = Link();
  std::vector<Prompt> prompts;
  for (uint32_t seed = 1; seed <= 12; ++seed) {
    prompts.emplace_back(raw_spec_, 1000, seed);
    ASSERT_OK(Store(link, prompts.back()));
  }
  EXPECT_GT(BlocksIn(kHostPool), 0);
  for (const Prompt& prompt : prompts) {
    const auto fetched = Fetch(link.get(), prompt);
    ASSERT_OK(fetched);
    EXPECT_EQ(*fetched, *FetchByGrpc(prompt));
  }
}

TEST_F(NcclFetchTest, TellsHowManyBlocksAreInHostMemoryAndGoesOn) {
  Start();
  const auto link = Link();
  const Prompt prompt(raw_spec_, 5 * kPageTokens, 1);
  ASSERT_OK(Store(link, prompt));
  auto moved = server_->cache().Lookup({}, spec_->fingerprint,
                                       BlockKeys(spec_->fingerprint, "", prompt.token_ids()),
                                       nullptr, absl::Seconds(30), kHostPool);
  ASSERT_OK(moved);
  Match in_host;
  in_host.blocks = moved->matched_blocks;
  in_host.lease_id = moved->lease_id;
  std::vector<std::vector<uint8_t>> memory;
  std::vector<uint8_t*> device_layers;
  for (const PageLayout& layout : spec_->layer_layouts) {
    memory.emplace_back(5 * layout.page_bytes);
    device_layers.push_back(memory.back().data());
  }
  EXPECT_THAT(FetchOverNccl(channel_, link.get(), spec_, in_host, {}, device_layers, nullptr),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("of 5 blocks, 5 are in host memory"))));
  ASSERT_OK(server_->cache().Release({}, moved->lease_id));
  ASSERT_OK(link->status());
  ASSERT_OK(Fetch(link.get(), prompt));
}

TEST_F(NcclFetchTest, ADamagedPageIsNeverDeliveredAndTheChannelGoesOn) {
  Start();
  const auto link = Link();
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(Store(link, prompt));
  DecodeReader reader(channel_, spec_);
  const auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  {
    const auto lease = *server_->cache().FindLease({}, match->lease_id);
    const auto page = lease->blocks[1].page(2);
    devices_[0]->Poke(const_cast<uint8_t*>(page.data()) + 1000, 1)[0] ^= 4;
    server_->cache().Usage();  // by its lock, the device's threads see the write
  }
  EXPECT_THAT(Fetch(link.get(), prompt).status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("layer 2, block 1")));
  EXPECT_EQ(reader.Lookup(prompt.token_ids(), {})->blocks, 1);
  ASSERT_OK(link->status());
  const Prompt next(raw_spec_, 300, 2);
  ASSERT_OK(Store(link, next));
  ASSERT_OK(Fetch(link.get(), next));
}

TEST_F(NcclFetchTest, AnUnknownLeaseIsRefusedAndTheChannelGoesOn) {
  Start();
  const auto link = Link();
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(Store(link, prompt));
  Match match;
  match.blocks = 2;
  match.lease_id = 12345;
  std::vector<uint8_t> memory(2 * spec_->layer_layouts[0].page_bytes);
  const std::vector<uint8_t*> device_layers(raw_spec_.layers, memory.data());
  EXPECT_THAT(FetchOverNccl(channel_, link.get(), spec_, match, {}, device_layers, nullptr),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("12345")));
  ASSERT_OK(Fetch(link.get(), prompt));
}

TEST_F(NcclFetchTest, StoresAndFetchesShareAChannel) {
  Start();
  const auto link = Link();
  std::vector<Prompt> prompts;
  for (uint32_t seed = 1; seed <= 2; ++seed) {
    prompts.emplace_back(raw_spec_, 15 * kPageTokens + 5, seed);
    ASSERT_OK(Store(link, prompts.back()));
  }
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      for (uint32_t round = 0; round < 3; ++round) {
        const auto fetched = Fetch(link.get(), prompts[i]);
        EXPECT_TRUE(fetched.ok()) << fetched.status();
        if (!fetched.ok()) continue;
        EXPECT_EQ(*fetched, *FetchByGrpc(prompts[i]));
      }
    });
    threads.emplace_back([&, i] {
      for (uint32_t round = 0; round < 3; ++round) {
        const auto stored = Store(link, Prompt(raw_spec_, 10 * kPageTokens, 10 * round + i + 50));
        EXPECT_TRUE(stored.ok()) << stored.status();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ExpectAllFreed();
}

}  // namespace
}  // namespace turbokv::testing
