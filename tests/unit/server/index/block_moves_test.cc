// Blocks that move between host memory and the pool of a device.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/server/index/test_entries.h"

namespace turbokv {
namespace {

constexpr size_t kSlabBytes = size_t{64} << 10;
constexpr size_t kPageBytes = 4096;
constexpr int kLayers = 4;
constexpr PoolId kDevice = 1;

// Copies at once, and lets a test act in the middle of it.
class TestCopier : public ExtentCopier {
 public:
  absl::Status Copy(absl::Span<const ExtentCopy> copies) override {
    if (before) std::exchange(before, nullptr)();
    if (!status.ok()) return status;
    for (const ExtentCopy& copy : copies) std::memcpy(copy.to, copy.from, copy.bytes);
    return absl::OkStatus();
  }
  std::function<void()> before;
  absl::Status status;
};

class BlockMovesTest : public ::testing::Test {
 protected:
  // Sixteen blocks fit the device's pool, 64 the host's.
  void Open(size_t host_bytes = 16 * kSlabBytes) {
    BlockCacheOptions options;
    options.budget_bytes = host_bytes;
    options.slab_bytes = kSlabBytes;
    DevicePools devices;
    devices.arenas.push_back(*MakeHostArena(4 * kSlabBytes, kSlabBytes, false));
    devices.copier = &copier_;
    cache_ = *BlockCache::Create(options, nullptr, std::move(devices));
  }

  absl::StatusOr<int64_t> Store(int64_t first, int64_t count, PoolId pool = kDevice) {
    const std::vector<Digest> keys = TestKeys(first, count);
    std::vector<ReserveRequest> requests = Requests(keys, geometry_);
    for (ReserveRequest& request : requests) request.pool = pool;
    auto pending = cache_->Reserve(owner_, requests);
    if (!pending.ok()) return pending.status();
    for (size_t i = 0; i < keys.size(); ++i) {
      if ((*pending)[i]) Stamp((*pending)[i], keys[i], kLayers);
    }
    return cache_->Publish(*std::move(pending));
  }

  LookupOutcome Lookup(int64_t first, int64_t count, std::optional<PoolId> move_to = std::nullopt) {
    return *cache_->Lookup(owner_, geometry_->spec_fingerprint, TestKeys(first, count), nullptr,
                           absl::ZeroDuration(), move_to);
  }

  // The pools of the blocks that a lease holds; checks what is in them.
  std::vector<int> PoolsOf(const LookupOutcome& outcome, int64_t first) {
    std::vector<int> pools;
    const auto lease = *cache_->FindLease(owner_, outcome.lease_id);
    for (size_t i = 0; i < lease->blocks.size(); ++i) {
      EXPECT_TRUE(HasStamp(lease->blocks[i], TestKey(first + static_cast<int64_t>(i))));
      pools.push_back(lease->blocks[i].pool());
    }
    return pools;
  }

  int64_t BlocksIn(PoolId pool) { return cache_->Usage().pools[pool].blocks; }

  const ClientIdentity owner_;
  TestCopier copier_;
  const std::shared_ptr<const EntryGeometry> geometry_ = TestGeometry(kPageBytes, kLayers);
  std::unique_ptr<BlockCache> cache_;
};

TEST_F(BlockMovesTest, WhatADeviceHasNoRoomForMovesToHostMemory) {
  Open();
  for (int64_t i = 0; i < 40; i += 4) ASSERT_EQ(*Store(i, 4), 4);
  EXPECT_EQ(BlocksIn(kDevice), 16);
  EXPECT_EQ(BlocksIn(kHostPool), 24);
  EXPECT_EQ(cache_->Usage().evicted_blocks, 0);
  const LookupOutcome all = Lookup(0, 40);
  ASSERT_EQ(all.matched_blocks, 40);
  const std::vector<int> pools = PoolsOf(all, 0);
  EXPECT_EQ(std::count(pools.begin(), pools.begin() + 24, kHostPool), 24) << "the oldest went";
}

TEST_F(BlockMovesTest, LeasedBlocksStayWhereTheyAre) {
  Open();
  ASSERT_EQ(*Store(0, 16), 16);
  const LookupOutcome held = Lookup(0, 16);
  const auto full = Store(100, 1);
  EXPECT_EQ(full.status().code(), absl::StatusCode::kResourceExhausted) << full.status();
  ASSERT_TRUE(cache_->Release(owner_, held.lease_id).ok());
  EXPECT_EQ(*Store(100, 1), 1);
}

TEST_F(BlockMovesTest, ALookupDuringTheCopyKeepsTheBlockInPlace) {
  Open();
  ASSERT_EQ(*Store(0, 16), 16);
  LookupOutcome held;
  copier_.before = [&] { held = Lookup(0, 1); };
  ASSERT_EQ(*Store(100, 4), 4);
  ASSERT_EQ(held.matched_blocks, 1);
  EXPECT_THAT(PoolsOf(held, 0), ::testing::ElementsAre(kDevice));
  EXPECT_EQ(Lookup(0, 16).matched_blocks, 16) << "nothing was lost";
}

TEST_F(BlockMovesTest, ABlockRemovedDuringTheCopyIsGone) {
  Open();
  ASSERT_EQ(*Store(0, 16), 16);
  copier_.before = [&] { EXPECT_EQ(cache_->Remove(owner_, TestKeys(0, 1)), 1); };
  ASSERT_EQ(*Store(100, 4), 4);
  EXPECT_EQ(Lookup(0, 1).matched_blocks, 0);
  EXPECT_EQ(Lookup(1, 15).matched_blocks, 15);
}

TEST_F(BlockMovesTest, EvictsFromTheDeviceWhatCannotBeMoved) {
  Open();
  ASSERT_EQ(*Store(0, 16), 16);
  copier_.status = absl::InternalError("the copy engine is on fire");
  ASSERT_EQ(*Store(100, 4), 4);
  EXPECT_EQ(cache_->Usage().evicted_blocks, 4);
  EXPECT_EQ(BlocksIn(kDevice), 16);
  EXPECT_EQ(BlocksIn(kHostPool), 0);
  EXPECT_EQ(cache_->Usage().pools[kHostPool].used_bytes, 0);
}

TEST_F(BlockMovesTest, LookupsPromote) {
  Open();
  ASSERT_EQ(*Store(0, 8, kHostPool), 8);
  const LookupOutcome found = Lookup(0, 8, kDevice);
  EXPECT_THAT(PoolsOf(found, 0), ::testing::Each(kDevice));
  EXPECT_EQ(cache_->Usage().pools[kHostPool].used_bytes, 0);
}

TEST_F(BlockMovesTest, LookupsGatherInHostMemory) {
  Open();
  ASSERT_EQ(*Store(0, 8), 8);
  const LookupOutcome found = Lookup(0, 8, kHostPool);
  EXPECT_THAT(PoolsOf(found, 0), ::testing::Each(kHostPool));
  EXPECT_EQ(cache_->Usage().pools[kDevice].used_bytes, 0);
}

TEST_F(BlockMovesTest, PromotionDemotesWhatIsOlder) {
  Open();
  ASSERT_EQ(*Store(0, 16), 16);
  ASSERT_EQ(*Store(100, 8, kHostPool), 8);
  const LookupOutcome found = Lookup(100, 8, kDevice);
  EXPECT_THAT(PoolsOf(found, 100), ::testing::Each(kDevice));
  EXPECT_EQ(BlocksIn(kDevice), 16);
  EXPECT_EQ(BlocksIn(kHostPool), 8);
}

TEST_F(BlockMovesTest, PromotionLeavesWhatAnotherLeaseHolds) {
  Open();
  ASSERT_EQ(*Store(0, 4, kHostPool), 4);
  const LookupOutcome other = Lookup(1, 1);
  const LookupOutcome found = Lookup(0, 4, kDevice);
  EXPECT_THAT(PoolsOf(found, 0), ::testing::ElementsAre(kDevice, kHostPool, kDevice, kDevice));
  EXPECT_THAT(PoolsOf(other, 1), ::testing::ElementsAre(kHostPool));
}

TEST_F(BlockMovesTest, PromotionStopsWhereThereIsNoRoom) {
  Open();
  ASSERT_EQ(*Store(0, 14), 14);
  ASSERT_EQ(Lookup(0, 14).matched_blocks, 14);  // leased from here on
  ASSERT_EQ(*Store(100, 4, kHostPool), 4);
  const LookupOutcome found = Lookup(100, 4, kDevice);
  const std::vector<int> pools = PoolsOf(found, 100);
  EXPECT_EQ(std::count(pools.begin(), pools.end(), kDevice), 2);
}

TEST_F(BlockMovesTest, ALostPoolIsOnlyMisses) {
  Open();
  ASSERT_EQ(*Store(0, 8), 8);
  ASSERT_EQ(*Store(50, 4, kHostPool), 4);
  const LookupOutcome held = Lookup(0, 2);
  cache_->LosePool(kDevice);
  EXPECT_EQ(Lookup(0, 8).matched_blocks, 0);
  EXPECT_EQ(Lookup(50, 4).matched_blocks, 4);
  EXPECT_EQ(Store(60, 1).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(cache_->Usage().pools[kDevice].lost);
  ASSERT_TRUE(cache_->Release(owner_, held.lease_id).ok());
  EXPECT_EQ(cache_->Usage().pools[kDevice].used_bytes, 0);
}

TEST_F(BlockMovesTest, APoolLostDuringAMoveLosesNoMemory) {
  Open();
  ASSERT_EQ(*Store(0, 4, kHostPool), 4);
  copier_.before = [&] { cache_->LosePool(kDevice); };
  const LookupOutcome found = Lookup(0, 4, kDevice);
  EXPECT_THAT(PoolsOf(found, 0), ::testing::Each(kHostPool));
  EXPECT_EQ(cache_->Usage().pools[kDevice].used_bytes, 0);
}

TEST_F(BlockMovesTest, TellsWherePagesLie) {
  Open();
  ASSERT_EQ(*Store(0, 2), 2);
  const LookupOutcome found = Lookup(0, 2);
  const auto lease = *cache_->FindLease(owner_, found.lease_id);
  const Place first = lease->blocks[0].place();
  EXPECT_EQ(first.pool, kDevice);
  EXPECT_EQ(
      lease->blocks[1].place().offset_bytes - first.offset_bytes,
      static_cast<uint64_t>(lease->blocks[1].page(0).data() - lease->blocks[0].page(0).data()));
}

TEST_F(BlockMovesTest, SharesOnlySlabsThatTheLeaseIsIn) {
  BlockCacheOptions options;
  options.budget_bytes = 16 * kSlabBytes;
  options.slab_bytes = kSlabBytes;
  options.shareable = true;
  cache_ = *BlockCache::Create(options, nullptr);
  ASSERT_EQ(*Store(0, 8, kHostPool), 8);  // two slabs
  const ClientIdentity other{"other", "default"};
  ASSERT_EQ(*StoreKeys(cache_.get(), other, TestKeys(0, 4), geometry_), 4);
  const LookupOutcome found = Lookup(0, 4);
  const auto lease = *cache_->FindLease(owner_, found.lease_id);
  const auto slab = static_cast<uint32_t>(lease->blocks[0].place().offset_bytes / kSlabBytes);
  const auto shared = cache_->ShareSlab(owner_, found.lease_id, kHostPool, slab);
  ASSERT_TRUE(shared.ok()) << shared.status();
  close(shared->slab.fd);
  int refused = 0;
  for (uint32_t i = 0; i < cache_->pool_geometry(kHostPool).slab_count; ++i) {
    if (i == slab) continue;
    EXPECT_EQ(cache_->ShareSlab(owner_, found.lease_id, kHostPool, i).status().code(),
              absl::StatusCode::kNotFound);
    ++refused;
  }
  EXPECT_EQ(refused, 15);
  EXPECT_EQ(cache_->ShareSlab(other, found.lease_id, kHostPool, slab).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace turbokv
