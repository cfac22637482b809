#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/pool/arena.h"
#include "server/pool/slab_pool.h"

namespace turbokv {
namespace {

using ::testing::HasSubstr;

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kSlabBytes = 16384;

TEST(HostArenaTest, RefusesSizesThatMakeNoSense) {
  const auto message = [](size_t budget_bytes, size_t slab_bytes) {
    const auto arena = MakeHostArena(budget_bytes, slab_bytes, false);
    EXPECT_EQ(arena.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(arena.status().message());
  };
  EXPECT_THAT(message(kMiB, 0), HasSubstr("multiple of 4096"));
  EXPECT_THAT(message(kMiB, 5000), HasSubstr("slab size of 5000 bytes"));
  EXPECT_THAT(message(kMiB, 2 * kMiB), HasSubstr("more than the memory budget of 1048576 bytes"));
  EXPECT_THAT(message(size_t{1} << 40, 4096), HasSubstr("268435456 slabs"));
}

TEST(HostArenaTest, RefusesABudgetThatCannotBeMapped) {
  EXPECT_FALSE(MakeHostArena(size_t{1} << 60, size_t{1} << 42, false).ok());
}

TEST(HostArenaTest, PrivateMemoryIsNotShared) {
  const auto arena = *MakeHostArena(4 * kSlabBytes, kSlabBytes, false);
  EXPECT_EQ(arena->Share(0).status().code(), absl::StatusCode::kUnimplemented);
}

// A slab as another process has it.
class Mapping {
 public:
  explicit Mapping(const SharedSlab& slab)
      : address_(mmap(nullptr, kSlabBytes, PROT_READ, MAP_SHARED, slab.fd, 0)) {
    close(slab.fd);
  }
  ~Mapping() { munmap(address_, kSlabBytes); }
  const char* text() const { return static_cast<const char*>(address_); }

 private:
  void* const address_;
};

TEST(HostArenaTest, SharedSlabsAreReadOnlyForOthers) {
  const auto arena = *MakeHostArena(4 * kSlabBytes, kSlabBytes, true);
  const SharedSlab slab = *arena->Share(2);
  EXPECT_EQ(slab.kind, ShareKind::kMemfd);
  EXPECT_EQ(mmap(nullptr, kSlabBytes, PROT_READ | PROT_WRITE, MAP_SHARED, slab.fd, 0), MAP_FAILED);
  EXPECT_LT(pwrite(slab.fd, "x", 1, 0), 0);
  EXPECT_NE(ftruncate(slab.fd, 0), 0);
  const int seals = fcntl(slab.fd, F_GET_SEALS);
  EXPECT_EQ(seals & (F_SEAL_SHRINK | F_SEAL_GROW), F_SEAL_SHRINK | F_SEAL_GROW);
  const Mapping mapping(slab);
  std::strcpy(reinterpret_cast<char*>(arena->base() + 2 * kSlabBytes), "written later");
  EXPECT_STREQ(mapping.text(), "written later");
}

TEST(HostArenaTest, ARenewedSlabIsOtherMemory) {
  const auto arena = *MakeHostArena(2 * kSlabBytes, kSlabBytes, true);
  char* const text = reinterpret_cast<char*>(arena->base() + kSlabBytes);
  std::strcpy(text, "one tenant's");
  const Mapping mapping(*arena->Share(1));
  ASSERT_TRUE(arena->Renew(1).ok());
  EXPECT_STREQ(text, "") << "nothing of what was there is left";
  std::strcpy(text, "another's");
  EXPECT_STREQ(mapping.text(), "one tenant's");
  const Mapping again(*arena->Share(1));
  EXPECT_STREQ(again.text(), "another's");
}

TEST(HostArenaTest, GroupsNeverShareASlab) {
  const auto pool = *SlabPool::Create(*MakeHostArena(2 * kSlabBytes, kSlabBytes, true));
  const auto mine = pool->Allocate({1024, 7}, 1);
  const auto theirs = pool->Allocate({1024, 8}, 2);
  ASSERT_TRUE(mine && theirs);
  EXPECT_NE(mine->slab, theirs->slab);
  EXPECT_FALSE(pool->HasRoom({1024, 9}));
  EXPECT_FALSE(pool->Allocate({1024, 9}, 3));
  std::strcpy(reinterpret_cast<char*>(pool->Address(*mine)), "group 7");
  const Mapping mapping(*pool->Share(mine->slab));
  pool->Free(*mine);
  const auto next = pool->Allocate({1024, 9}, 3);
  ASSERT_TRUE(next);
  EXPECT_EQ(next->slab, mine->slab);
  std::strcpy(reinterpret_cast<char*>(pool->Address(*next)), "group 9");
  EXPECT_STREQ(mapping.text() + pool->OffsetBytes(*mine) % kSlabBytes, "group 7");
}

}  // namespace
}  // namespace turbokv
