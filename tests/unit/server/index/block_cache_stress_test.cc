// Many threads on one small cache. Run under ThreadSanitizer, this is the test of its locking.
#include <random>
#include <thread>

#include "gtest/gtest.h"
#include "server/index/block_cache.h"
#include "server/telemetry/metrics.h"
#include "tests/unit/server/index/test_entries.h"

namespace turbokv {
namespace {

constexpr size_t kSlabBytes = 16384;
constexpr size_t kBudgetBytes = 20 * kSlabBytes;
constexpr int64_t kKeys = 300;
constexpr int kSteps = 1500;

class Worker {
 public:
  Worker(BlockCache* cache, int seed) : cache_(cache), random_(seed) {}

  void Run() {
    for (int step = 0; step < kSteps; ++step) {
      switch (Random(8)) {
        case 0:
        case 1:
        case 2:
          Store();
          break;
        case 3:
        case 4:
        case 5:
          LookUpAndRead();
          break;
        case 6:
          cache_->Remove(owner_, TestKeys(Random(kKeys), 2));
          break;
        default:
          cache_->ExpireLeases();
      }
      const CacheUsage usage = cache_->Usage();
      EXPECT_LE(usage.used_bytes, kBudgetBytes);
      EXPECT_LE(usage.reserved_bytes, kBudgetBytes);
    }
  }

 private:
  int64_t Random(int64_t bound) { return static_cast<int64_t>(random_() % bound); }

  // Keys of run r are of geometry r % 3: three size classes compete for the slabs.
  const std::shared_ptr<const EntryGeometry>& GeometryOf(int64_t run) {
    return geometries_[run % geometries_.size()];
  }

  void Store() {
    const int64_t run = Random(30);
    const auto& geometry = GeometryOf(run);
    const std::vector<Digest> keys = TestKeys(run * 10, 1 + Random(10));
    auto pending = cache_->Reserve(owner_, Requests(keys, geometry));
    if (!pending.ok()) {
      EXPECT_EQ(pending.status().code(), absl::StatusCode::kResourceExhausted);
      return;
    }
    for (size_t i = 0; i < keys.size(); ++i) {
      if ((*pending)[i]) Stamp((*pending)[i], keys[i], geometry->layers());
    }
    if (Random(5) != 0) cache_->Publish(*std::move(pending));
  }

  void LookUpAndRead() {
    const int64_t run = Random(30);
    const auto& geometry = GeometryOf(run);
    const std::vector<Digest> keys = TestKeys(run * 10, 10);
    const absl::Duration lease = absl::Milliseconds(Random(2) == 0 ? 1 : 1000);
    const auto found = cache_->Lookup(owner_, geometry->spec_fingerprint, keys, nullptr, lease);
    ASSERT_TRUE(found.ok()) << found.status();
    if (found->matched_blocks == 0) return;
    const auto info = cache_->FindLease(owner_, found->lease_id);
    if (info.ok()) {
      const std::vector<EntryRef> copies = (*info)->blocks;
      if (Random(2) == 0) cache_->Release(owner_, found->lease_id).IgnoreError();
      for (size_t i = 0; i < copies.size(); ++i) EXPECT_TRUE(HasStamp(copies[i], keys[i]));
      if (Random(10) == 0) cache_->Discard(copies[0]);
    }
    if (Random(2) == 0) cache_->Release(owner_, found->lease_id).IgnoreError();
  }

  BlockCache* const cache_;
  const ClientIdentity owner_{};
  const std::vector<std::shared_ptr<const EntryGeometry>> geometries_ = {
      TestGeometry(256, 4, "small"), TestGeometry(1024, 4, "medium"),
      TestGeometry(4096, 3, "large")};
  std::mt19937_64 random_;
};

TEST(BlockCacheStressTest, ThreadsNeverSeeWrongPagesAndLeaveNothingBehind) {
  Metrics metrics;
  BlockCacheOptions options;
  options.budget_bytes = kBudgetBytes;
  options.slab_bytes = kSlabBytes;
  auto cache = *BlockCache::Create(options, &metrics);
  std::vector<std::thread> threads;
  for (int seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&cache, seed] { Worker(cache.get(), seed).Run(); });
  }
  for (std::thread& thread : threads) thread.join();
  absl::SleepFor(absl::Milliseconds(1010));
  cache->ExpireLeases();
  CacheUsage usage = cache->Usage();
  EXPECT_EQ(usage.leases, 0);
  EXPECT_EQ(usage.leased_blocks, 0);
  EXPECT_EQ(usage.pending_entries, 0);
  EXPECT_GT(usage.evicted_blocks, 0);
  cache->Remove({}, TestKeys(0, kKeys));
  usage = cache->Usage();
  EXPECT_EQ(usage.blocks, 0);
  EXPECT_EQ(usage.used_bytes, 0);
  EXPECT_EQ(usage.reserved_bytes, 0);
}

}  // namespace
}  // namespace turbokv
