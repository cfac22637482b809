#include "server/pool/slab_pool.h"

#include <cstring>
#include <map>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace turbokv {
namespace {

using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

constexpr size_t kMiB = size_t{1} << 20;

TEST(SlabPoolTest, ChoosesASixtyFourthOfTheBudgetWithinBounds) {
  EXPECT_EQ(ChooseSlabBytes(4096 * kMiB, 0), 128 * kMiB);
  EXPECT_EQ(ChooseSlabBytes(1024 * kMiB, 0), 32 * kMiB);
  EXPECT_EQ(ChooseSlabBytes(size_t{1} << 40, 0), 128 * kMiB);
  EXPECT_EQ(ChooseSlabBytes(10 * kMiB, 0), kMiB);
  EXPECT_EQ(ChooseSlabBytes(300'000, 0), 299'008);
  EXPECT_EQ(ChooseSlabBytes(4096 * kMiB, 12288), 12288);
}

TEST(SlabPoolTest, HandsEmptySlabsToOtherClasses) {
  auto pool = *SlabPool::Create(*MakeHostArena(2 * 4096, 4096, false));
  const auto a = pool->Allocate({2048, 0}, 1);
  const auto b = pool->Allocate({2048, 0}, 2);
  const auto c = pool->Allocate({4096, 0}, 3);
  ASSERT_TRUE(a && b && c);
  EXPECT_EQ(a->slab, b->slab);
  EXPECT_FALSE(pool->Allocate({1024, 0}, 4).has_value());
  EXPECT_EQ(pool->reserved_bytes(), 8192);
  pool->Free(*a);
  EXPECT_FALSE(pool->Allocate({1024, 0}, 4).has_value()) << "the slab still serves its class";
  pool->Free(*b);
  EXPECT_EQ(pool->reserved_bytes(), 4096);
  for (uint32_t owner = 10; owner < 14; ++owner) EXPECT_TRUE(pool->Allocate({1024, 0}, owner));
  EXPECT_FALSE(pool->Allocate({1024, 0}, 14).has_value());
  EXPECT_THAT(pool->Owners(a->slab), UnorderedElementsAre(10, 11, 12, 13));
}

TEST(SlabPoolTest, RandomExtentsNeverOverlapOrLeaveTheBudget) {
  constexpr size_t kBudgetBytes = 40 * 16384;
  auto pool = *SlabPool::Create(*MakeHostArena(kBudgetBytes, 16384, false));
  struct Owned {
    Extent extent;
    size_t bytes;
  };
  std::map<uint32_t, Owned> owned;
  std::mt19937 random(7);
  const size_t classes[] = {128, 384, 1024, 5120, 16384};
  size_t used_bytes = 0;
  for (uint32_t step = 0; step < 50'000; ++step) {
    if (random() % 2 == 0) {
      const size_t bytes = classes[random() % std::size(classes)];
      if (const auto extent = pool->Allocate({bytes, 0}, step)) {
        std::memset(pool->Address(*extent), static_cast<int>(step % 251), bytes);
        owned[step] = {*extent, bytes};
        used_bytes += bytes;
      }
    } else if (!owned.empty()) {
      auto it = owned.lower_bound(random() % step);
      if (it == owned.end()) it = owned.begin();
      const uint8_t* bytes = pool->Address(it->second.extent);
      ASSERT_EQ(bytes[0], it->first % 251);
      ASSERT_EQ(bytes[it->second.bytes - 1], it->first % 251);
      pool->Free(it->second.extent);
      used_bytes -= it->second.bytes;
      owned.erase(it);
    }
    ASSERT_EQ(pool->used_bytes(), used_bytes);
    ASSERT_LE(pool->used_bytes(), pool->reserved_bytes());
    ASSERT_LE(pool->reserved_bytes(), kBudgetBytes);
  }
  for (const auto& [owner, extent] : owned) pool->Free(extent.extent);
  EXPECT_EQ(pool->used_bytes(), 0);
  EXPECT_EQ(pool->reserved_bytes(), 0);
}

}  // namespace
}  // namespace turbokv
