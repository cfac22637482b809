#include "server/index/block_cache.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/index/entry.h"
#include "server/telemetry/metrics.h"
#include "tests/unit/server/index/test_entries.h"

namespace turbokv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr size_t kPageBytes = 1024;
constexpr int kLayers = 4;
constexpr size_t kSlabBytes = 16384;  // four blocks
constexpr absl::Duration kLongLease = absl::Minutes(1);

class BlockCacheTest : public ::testing::Test {
 protected:
  void MakeCache(size_t slabs) {
    BlockCacheOptions options;
    options.budget_bytes = slabs * kSlabBytes;
    options.slab_bytes = kSlabBytes;
    options.max_leases = 8;
    auto created = BlockCache::Create(options, &metrics_);
    ASSERT_TRUE(created.ok()) << created.status();
    cache_ = *std::move(created);
  }

  absl::StatusOr<int64_t> Store(int64_t first, int64_t count) {
    return StoreKeys(cache_.get(), owner_, TestKeys(first, count), geometry_);
  }
  LookupOutcome Lookup(int64_t first, int64_t count, absl::Duration lease = kLongLease) {
    const auto found =
        cache_->Lookup(owner_, geometry_->spec_fingerprint, TestKeys(first, count), nullptr, lease);
    EXPECT_TRUE(found.ok()) << found.status();
    return found.value_or(LookupOutcome());
  }
  // Looks up and lets go: a use.
  int64_t Use(int64_t first, int64_t count) {
    const LookupOutcome found = Lookup(first, count);
    if (found.lease_id != 0) {
      EXPECT_TRUE(cache_->Release(owner_, found.lease_id).ok());
    }
    return found.matched_blocks;
  }

  Metrics metrics_;
  std::unique_ptr<BlockCache> cache_;
  const ClientIdentity owner_{"tenant", "client"};
  const std::shared_ptr<const EntryGeometry> geometry_ = TestGeometry(kPageBytes, kLayers);
};

TEST_F(BlockCacheTest, FindsWhatWasPublishedAndReadsItsPages) {
  MakeCache(4);
  EXPECT_EQ(*Store(0, 10), 10);
  const LookupOutcome found = Lookup(0, 12);
  EXPECT_EQ(found.matched_blocks, 10);
  EXPECT_EQ(found.layers, kLayers);
  EXPECT_EQ(found.lease, kLongLease);
  const auto lease = cache_->FindLease(owner_, found.lease_id);
  ASSERT_TRUE(lease.ok()) << lease.status();
  ASSERT_EQ((*lease)->blocks.size(), 10);
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(HasStamp((*lease)->blocks[i], TestKey(i)));
    EXPECT_EQ((*lease)->blocks[i].page(1).size(), kPageBytes);
    EXPECT_EQ((*lease)->blocks[i].tokens(), kPageTokens);
  }
  EXPECT_EQ(metrics_.hit_tokens(), 10 * kPageTokens);
  EXPECT_EQ(metrics_.missed_tokens(), 2 * kPageTokens);
}

TEST_F(BlockCacheTest, MatchesOnlyThePrefix) {
  MakeCache(4);
  ASSERT_EQ(*Store(0, 3), 3);
  ASSERT_EQ(*Store(4, 3), 3);
  EXPECT_EQ(Lookup(0, 7).matched_blocks, 3);
  EXPECT_EQ(Lookup(3, 4).matched_blocks, 0);
  EXPECT_EQ(Lookup(3, 4).lease_id, 0);
}

TEST_F(BlockCacheTest, PendingEntriesAreInvisibleAndGiveTheirMemoryBack) {
  MakeCache(4);
  {
    const auto pending = cache_->Reserve(owner_, Requests(TestKeys(0, 5), geometry_));
    ASSERT_TRUE(pending.ok());
    EXPECT_EQ(cache_->Usage().pending_entries, 5);
    EXPECT_EQ(Lookup(0, 5).matched_blocks, 0);
  }
  EXPECT_EQ(cache_->Usage().pending_entries, 0);
  EXPECT_EQ(cache_->Usage().used_bytes, 0);
  EXPECT_EQ(cache_->Usage().reserved_bytes, 0);
}

TEST_F(BlockCacheTest, TenantsAndSpecsShareNothing) {
  MakeCache(4);
  ASSERT_EQ(*Store(0, 2), 2);
  const ClientIdentity stranger{"other", "client"};
  EXPECT_EQ(CountPresent(cache_.get(), stranger, TestKeys(0, 2), geometry_->spec_fingerprint), 0);
  EXPECT_EQ(CountPresent(cache_.get(), owner_, TestKeys(0, 2), TestDigest("another spec")), 0);
  EXPECT_EQ(cache_->Remove(stranger, TestKeys(0, 2)), 0);
  const ClientIdentity colleague{"tenant", "another client"};
  EXPECT_EQ(CountPresent(cache_.get(), colleague, TestKeys(0, 2), geometry_->spec_fingerprint), 2);
}

TEST_F(BlockCacheTest, PresentKeysComeBackEmptyAndDuplicatesAreDroppedAtPublication) {
  MakeCache(4);
  ASSERT_EQ(*Store(0, 2), 2);
  auto pending = cache_->Reserve(owner_, Requests(TestKeys(1, 2), geometry_));
  ASSERT_TRUE(pending.ok());
  EXPECT_FALSE((*pending)[0]);
  ASSERT_TRUE((*pending)[1]);
  EXPECT_EQ(*Store(2, 1), 1) << "somebody else is faster";
  EXPECT_EQ(cache_->Publish(*std::move(pending)), 0);
  const std::vector<Digest> twice = {TestKey(5), TestKey(5)};
  EXPECT_EQ(*StoreKeys(cache_.get(), owner_, twice, geometry_), 1);
  EXPECT_EQ(cache_->Usage().blocks, 4);
  EXPECT_EQ(cache_->Usage().used_bytes, 4 * geometry_->extent_bytes());
}

TEST_F(BlockCacheTest, FindsTheTailOnlyBehindAllBlocks) {
  MakeCache(8);
  const auto tail_geometry = TestGeometry(kPageBytes, kLayers, "spec", EntryKind::kTail);
  std::vector<ReserveRequest> requests = Requests(TestKeys(0, 2), geometry_);
  requests.push_back({TestKey(100), tail_geometry, 200});
  auto pending = cache_->Reserve(owner_, requests);
  ASSERT_TRUE(pending.ok()) << pending.status();
  EXPECT_EQ((*pending)[2].page(3, 1).size(), kPageBytes);
  EXPECT_EQ(cache_->Publish(*std::move(pending)), 3);
  EXPECT_EQ(cache_->Usage().tails, 1);

  const Digest tail_key = TestKey(100);
  const auto look = [&](const std::vector<Digest>& keys, const Digest& key) {
    return *cache_->Lookup(owner_, geometry_->spec_fingerprint, keys, &key, kLongLease);
  };
  const LookupOutcome all = look(TestKeys(0, 2), tail_key);
  EXPECT_TRUE(all.tail_found);
  EXPECT_EQ(all.tail_tokens, 200);
  EXPECT_FALSE(look(TestKeys(0, 3), tail_key).tail_found);
  EXPECT_FALSE(look(TestKeys(0, 2), TestKey(0)).tail_found) << "a block is no tail";
  EXPECT_EQ(look({tail_key}, TestKey(7)).matched_blocks, 0) << "a tail is no block";
  const LookupOutcome tail_alone = look({}, tail_key);
  EXPECT_TRUE(tail_alone.tail_found);
  EXPECT_NE(tail_alone.lease_id, 0);
  EXPECT_EQ(tail_alone.layers, kLayers);
}

TEST_F(BlockCacheTest, EvictsTheLeastRecentlyUsedAndParentsLast) {
  MakeCache(2);  // eight blocks
  ASSERT_EQ(*Store(0, 4), 4);
  ASSERT_EQ(*Store(10, 4), 4);
  EXPECT_EQ(Use(0, 4), 4);
  ASSERT_EQ(*Store(20, 3), 3);
  EXPECT_EQ(Use(10, 4), 1) << "the last three blocks of the older prompt went, its root stayed";
  ASSERT_EQ(*Store(30, 2), 2);
  EXPECT_EQ(Use(0, 4), 2) << "oldest: the last blocks of the prompt used before";
  EXPECT_EQ(Use(10, 1), 1);
  EXPECT_EQ(cache_->Usage().evicted_blocks, 5);
}

TEST_F(BlockCacheTest, NeverEvictsWhatIsLeasedOrPending) {
  MakeCache(2);
  ASSERT_EQ(*Store(0, 4), 4);
  const LookupOutcome held = Lookup(0, 4);
  EXPECT_EQ(cache_->Usage().leased_blocks, 4);
  auto pending = cache_->Reserve(owner_, Requests(TestKeys(10, 3), geometry_));
  ASSERT_TRUE(pending.ok());
  const auto refused = Store(20, 2);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(HasSubstr("2 entries need 8192 bytes"), HasSubstr("budget of 32768 bytes"),
                    HasSubstr("hold 28672")));
  EXPECT_EQ(cache_->Usage().evicted_blocks, 0);
  EXPECT_EQ(cache_->Usage().pending_entries, 3) << "nothing of the refused request remains";
  EXPECT_EQ(*Store(20, 1), 1);
  ASSERT_TRUE(cache_->Release(owner_, held.lease_id).ok());
  EXPECT_EQ(*Store(30, 2), 2);
  EXPECT_EQ(cache_->Publish(*std::move(pending)), 3);
}

TEST_F(BlockCacheTest, APresentPrefixDoesNotMakeRoomForItsContinuation) {
  MakeCache(2);
  ASSERT_EQ(*Store(0, 4), 4);
  ASSERT_EQ(*Store(10, 4), 4);
  ASSERT_EQ(*Store(0, 7), 3);
  EXPECT_EQ(Use(0, 7), 7);
  EXPECT_EQ(*Store(0, 8), 1);
  EXPECT_EQ(Store(0, 9).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Use(0, 8), 8) << "a refused request evicts nothing that it was about";
}

TEST_F(BlockCacheTest, SlabsMoveToTheClassThatNeedsThem) {
  MakeCache(4);
  ASSERT_EQ(*Store(0, 16), 16);
  const auto large = TestGeometry(4 * kPageBytes, kLayers, "large spec");
  const auto store_large = [&](int64_t first, int64_t count) {
    return StoreKeys(cache_.get(), owner_, TestKeys(first, count), large);
  };
  ASSERT_EQ(*store_large(100, 3), 3);
  EXPECT_EQ(cache_->Usage().blocks, 4 + 3);
  EXPECT_LE(cache_->Usage().reserved_bytes, cache_->Usage().budget_bytes);
  const auto found =
      cache_->Lookup(owner_, large->spec_fingerprint, TestKeys(100, 3), nullptr, kLongLease);
  ASSERT_EQ(found->matched_blocks, 3);
  ASSERT_EQ(*store_large(200, 1), 1) << "the slab that nobody holds";
  EXPECT_EQ(store_large(300, 2).status().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(cache_->Release(owner_, found->lease_id).ok());
  EXPECT_EQ(*Store(0, 16), 16) << "and back again";
  EXPECT_EQ(cache_->Usage().blocks, 16);
}

TEST_F(BlockCacheTest, TheClassUsedLongestAgoGivesItsSlabUp) {
  const auto large = TestGeometry(4 * kPageBytes, kLayers, "large spec");
  const auto middle = TestGeometry(2 * kPageBytes, kLayers, "middle spec");
  const auto use_large = [&] {
    return CountPresent(cache_.get(), owner_, TestKeys(100, 1), large->spec_fingerprint);
  };
  for (const bool small_is_used_last : {true, false}) {
    MakeCache(2);
    ASSERT_EQ(*Store(0, 4), 4);
    ASSERT_EQ(*StoreKeys(cache_.get(), owner_, TestKeys(100, 1), large), 1);
    if (small_is_used_last) {
      ASSERT_EQ(Use(0, 4), 4);
    }
    ASSERT_EQ(*StoreKeys(cache_.get(), owner_, TestKeys(200, 1), middle), 1);
    EXPECT_EQ(Use(0, 4), small_is_used_last ? 4 : 0);
    EXPECT_EQ(use_large(), small_is_used_last ? 0 : 1);
  }
}

TEST_F(BlockCacheTest, ASlabWithOneHeldBlockStaysAndItsClassmatesMakeRoomForTheirOwn) {
  MakeCache(2);
  ASSERT_EQ(*Store(0, 8), 8);
  // One block of each slab is held: no slab can change class.
  const LookupOutcome first = Lookup(0, 1);
  const LookupOutcome last = Lookup(7, 1);
  ASSERT_NE(first.lease_id, 0);
  ASSERT_NE(last.lease_id, 0);
  const auto large = TestGeometry(4 * kPageBytes, kLayers, "large spec");
  EXPECT_EQ(StoreKeys(cache_.get(), owner_, TestKeys(100, 1), large).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(*Store(20, 6), 6);
  EXPECT_EQ(Use(20, 6), 6);
}

TEST_F(BlockCacheTest, RefusesAnExtentLargerThanASlab) {
  MakeCache(2);
  const auto huge = TestGeometry(kSlabBytes, 2, "huge");
  const auto refused = cache_->Reserve(owner_, Requests(TestKeys(0, 1), huge));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(HasSubstr("32768 bytes"), HasSubstr("16384"), HasSubstr("slab_size")));
}

TEST_F(BlockCacheTest, RefusesTokenCountsThatDoNotFit) {
  MakeCache(2);
  for (const int tokens : {0, -1, 129}) {
    const auto refused = cache_->Reserve(owner_, {{TestKey(0), geometry_, tokens}});
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument) << tokens;
  }
}

TEST_F(BlockCacheTest, LeasesBelongToTheirClient) {
  MakeCache(2);
  ASSERT_EQ(*Store(0, 2), 2);
  const uint64_t id = Lookup(0, 2).lease_id;
  for (const ClientIdentity& stranger :
       {ClientIdentity{"tenant", "other"}, ClientIdentity{"other", "client"}}) {
    EXPECT_EQ(cache_->FindLease(stranger, id).status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(cache_->Renew(stranger, id, kLongLease).status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(cache_->Release(stranger, id).code(), absl::StatusCode::kNotFound);
  }
  EXPECT_EQ(cache_->FindLease(owner_, id + 1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(cache_->Release(owner_, id).ok());
  EXPECT_EQ(cache_->Release(owner_, id).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(cache_->Usage().leases, 0);
  EXPECT_EQ(cache_->Usage().leased_blocks, 0);
}

TEST_F(BlockCacheTest, ExpiredLeasesHoldNothingButFetchesUnderWayDo) {
  MakeCache(2);
  ASSERT_EQ(*Store(0, 8), 8);
  const uint64_t id = Lookup(0, 8, absl::Milliseconds(20)).lease_id;
  EntryRef fetched;
  {
    const auto lease = cache_->FindLease(owner_, id);
    ASSERT_TRUE(lease.ok());
    fetched = (*lease)->blocks[0];
  }
  absl::SleepFor(absl::Milliseconds(30));
  EXPECT_EQ(cache_->FindLease(owner_, id).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(cache_->Renew(owner_, id, kLongLease).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(cache_->Usage().leased_blocks, 8) << "nobody has looked yet";
  EXPECT_EQ(*Store(10, 7), 7) << "a store under pressure lets expired leases go";
  EXPECT_EQ(cache_->Usage().leases, 0);
  EXPECT_EQ(cache_->Usage().leased_blocks, 1);
  EXPECT_TRUE(HasStamp(fetched, TestKey(0)));
  EXPECT_EQ(Store(20, 8).status().code(), absl::StatusCode::kResourceExhausted);
  fetched = EntryRef();
  EXPECT_EQ(*Store(20, 8), 8);
}

TEST_F(BlockCacheTest, RenewalExtendsAndLimitsApply) {
  MakeCache(2);
  ASSERT_EQ(*Store(0, 1), 1);
  const LookupOutcome found = Lookup(0, 1, absl::Milliseconds(20));
  EXPECT_EQ(*cache_->Renew(owner_, found.lease_id, kLongLease), kLongLease);
  absl::SleepFor(absl::Milliseconds(30));
  cache_->ExpireLeases();
  EXPECT_TRUE(cache_->FindLease(owner_, found.lease_id).ok());
  EXPECT_EQ(*cache_->Renew(owner_, found.lease_id, absl::ZeroDuration()), absl::Seconds(30));
  EXPECT_EQ(*cache_->Renew(owner_, found.lease_id, absl::InfiniteDuration()), absl::Minutes(10));
  EXPECT_EQ(Lookup(0, 1, -absl::InfiniteDuration()).lease, absl::Seconds(30));
}

TEST_F(BlockCacheTest, TheNumberOfLeasesIsBounded) {
  MakeCache(2);
  ASSERT_EQ(*Store(0, 1), 1);
  for (int i = 0; i < 8; ++i) Lookup(0, 1);
  const auto refused =
      cache_->Lookup(owner_, geometry_->spec_fingerprint, TestKeys(0, 1), nullptr, kLongLease);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("8 of at most 8"));
  EXPECT_EQ(cache_->Usage().leases, 8);
}

TEST_F(BlockCacheTest, RemovedBlocksStayReadableToTheirLease) {
  MakeCache(2);
  ASSERT_EQ(*Store(0, 3), 3);
  const LookupOutcome found = Lookup(0, 3);
  EXPECT_EQ(cache_->Remove(owner_, TestKeys(1, 5)), 2);
  EXPECT_EQ(cache_->Usage().blocks, 1);
  EXPECT_EQ(Use(0, 3), 1);
  {
    const auto lease = cache_->FindLease(owner_, found.lease_id);
    EXPECT_TRUE(HasStamp((*lease)->blocks[2], TestKey(2)));
  }
  EXPECT_EQ(*Store(1, 1), 1) << "the key is free again";
  ASSERT_TRUE(cache_->Release(owner_, found.lease_id).ok());
  EXPECT_EQ(cache_->Usage().used_bytes, 2 * geometry_->extent_bytes());
}

TEST_F(BlockCacheTest, DiscardedBlocksAreNotFoundAgain) {
  MakeCache(2);
  ASSERT_EQ(*Store(0, 3), 3);
  {
    const LookupOutcome found = Lookup(0, 3);
    const auto lease = cache_->FindLease(owner_, found.lease_id);
    cache_->Discard((*lease)->blocks[1]);
    cache_->Discard((*lease)->blocks[1]);
    ASSERT_TRUE(cache_->Release(owner_, found.lease_id).ok());
  }
  EXPECT_EQ(Use(0, 3), 1);
  EXPECT_EQ(cache_->Usage().blocks, 2);
}

TEST(BlockCacheCreateTest, RefusesOptionsThatMakeNoSense) {
  const auto code = [](const BlockCacheOptions& options) {
    return BlockCache::Create(options, nullptr).status().code();
  };
  BlockCacheOptions options;
  options.budget_bytes = 0;
  EXPECT_EQ(code(options), absl::StatusCode::kInvalidArgument);
  options = {};
  options.slab_bytes = 100;
  EXPECT_EQ(code(options), absl::StatusCode::kInvalidArgument);
  options = {};
  options.default_lease = absl::Minutes(11);
  EXPECT_EQ(code(options), absl::StatusCode::kInvalidArgument);
  options = {};
  options.max_lease = absl::InfiniteDuration();
  EXPECT_EQ(code(options), absl::StatusCode::kInvalidArgument);
}

TEST(BlockCacheBoundsTest, EntriesHeldByLeasesAreBounded) {
  BlockCacheOptions options;
  options.budget_bytes = 1 << 20;
  options.slab_bytes = kSlabBytes;
  options.max_leased_entries = 10;
  auto cache = *BlockCache::Create(options, nullptr);
  const auto geometry = TestGeometry(kPageBytes, 1);
  const ClientIdentity owner{};
  ASSERT_EQ(*StoreKeys(cache.get(), owner, TestKeys(0, 8), geometry), 8);
  const auto lookup = [&](int64_t count) {
    return cache->Lookup(owner, geometry->spec_fingerprint, TestKeys(0, count), nullptr,
                         kLongLease);
  };
  ASSERT_TRUE(lookup(8).ok());
  const auto refused = lookup(3);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("lease of 3 entries: leases hold 8 of at most 10"));
  EXPECT_TRUE(lookup(2).ok());
}

TEST(BlockCacheBoundsTest, ThePoolCanBeFullOfTheSmallestExtents) {
  // As many extents as entries: the next store must evict for both.
  BlockCacheOptions options;
  options.budget_bytes = EntryArray::kChunkItems * kExtentAlignmentBytes;
  auto cache = *BlockCache::Create(options, nullptr);
  const auto geometry = TestGeometry(kExtentAlignmentBytes, 1);
  const ClientIdentity owner{};
  const auto store = [&](int64_t first, int64_t count) {
    auto pending = cache->Reserve(owner, Requests(TestKeys(first, count), geometry));
    return pending.ok() ? cache->Publish(*std::move(pending)) : -1;
  };
  const int64_t capacity = static_cast<int64_t>(EntryArray::kChunkItems);
  ASSERT_EQ(store(0, capacity), capacity);
  EXPECT_EQ(store(capacity, 100), 100);
  EXPECT_EQ(cache->Usage().blocks, capacity);
  EXPECT_EQ(cache->Usage().evicted_blocks, 100);
}

TEST(EntryGeometryTest, LaysPagesOutLayerByLayer) {
  ResolvedSpec spec;
  spec.layer_layouts.resize(3);
  spec.layer_layouts[0].page_bytes = 256;
  spec.layer_layouts[1].page_bytes = 128;
  spec.layer_layouts[2].page_bytes = 512;
  spec.tail_layout.page_bytes = 1024;
  spec.fingerprint = TestDigest("x");
  const auto block = EntryGeometry::ForBlock(spec);
  EXPECT_EQ(block->layers(), 3);
  EXPECT_EQ(block->page_offsets_bytes, (std::vector<size_t>{0, 256, 384, 896}));
  const auto tail = EntryGeometry::ForTail(spec);
  EXPECT_EQ(tail->layers(), 3);
  EXPECT_EQ(tail->extent_bytes(), 6 * 1024);
  EXPECT_EQ(tail->spec_fingerprint, spec.fingerprint);
}

}  // namespace
}  // namespace turbokv
