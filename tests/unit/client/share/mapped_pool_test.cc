#include "client/share/mapped_pool.h"

#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/share/share_testing.h"

namespace turbokv::testing {
namespace {

using ::testing::HasSubstr;

constexpr SlabGeometry kGeometry = {.slab_bytes = 8192, .slab_count = 4};

std::string Message(const absl::Status& status) { return std::string(status.message()); }

std::unique_ptr<MappedPool> NewPool() {
  return *MappedPool::Create(nullptr, 0, kGeometry, *MakeHostSlabImporter(kGeometry));
}

SlabOffer Offer(UniqueFd fd, uint64_t generation = 0, ShareKind kind = ShareKind::kMemfd) {
  SlabOffer offer;
  offer.fd = std::move(fd);
  offer.slab.memory.kind = kind;
  offer.slab.memory.fd = offer.fd.get();
  offer.slab.geometry = kGeometry;
  offer.slab.generation = generation;
  return offer;
}

// Permissions of the mapping that `address` lies in, as in /proc/self/maps.
std::string Permissions(const uint8_t* address) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    const std::vector<std::string> range = absl::StrSplit(words[0], '-');
    const auto at = reinterpret_cast<uint64_t>(address);
    if (at >= std::stoull(range[0], nullptr, 16) && at < std::stoull(range[1], nullptr, 16)) {
      return words[1];
    }
  }
  return "";
}

TEST(SlabGeometryTest, NamesTheNumberAndItsLimit) {
  EXPECT_THAT(Message(CheckSlabGeometry({0, 1})), HasSubstr("slabs of 0 bytes"));
  EXPECT_THAT(Message(CheckSlabGeometry({5000, 1})), HasSubstr("multiple of 4096"));
  EXPECT_THAT(Message(CheckSlabGeometry({4096, 0})), HasSubstr("0 slabs: must be 1..1048576"));
  EXPECT_THAT(Message(CheckSlabGeometry({4096, (1 << 20) + 1})), HasSubstr("1048577 slabs"));
  EXPECT_THAT(Message(CheckSlabGeometry({uint64_t{1} << 40, 1000})), HasSubstr("together"));
  EXPECT_FALSE(CheckSlabGeometry({~uint64_t{4095}, 1 << 20}).ok());
}

TEST(MappedPoolTest, SlabsAppearAtTheirOffsetReadOnly) {
  auto pool = NewPool();
  EXPECT_EQ(pool->Bytes(0, 1).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(pool->Map(2, Offer(FilledMemfd(8192, 22))).ok());
  ASSERT_TRUE(pool->Map(1, Offer(FilledMemfd(8192, 11), 5, ShareKind::kFakeFd)).ok());
  EXPECT_EQ((*pool->Bytes(2 * 8192, 8192))[8191], 22);
  const auto across = pool->Bytes(8192 + 100, 8192);
  ASSERT_TRUE(across.ok());
  EXPECT_EQ(across->front(), 11);
  EXPECT_EQ(across->back(), 22);
  EXPECT_EQ(across->data(), pool->base() + 8192 + 100);
  EXPECT_EQ(Permissions(pool->base() + 8192), "r--s");
  EXPECT_EQ(Permissions(pool->base()), "---p");
  EXPECT_TRUE(pool->IsMapped(1, 5));
  EXPECT_FALSE(pool->IsMapped(1, 4));
  EXPECT_FALSE(pool->IsMapped(0, 0));
  EXPECT_FALSE(pool->IsMapped(4, 0));
}

TEST(MappedPoolTest, ChecksPlaces) {
  auto pool = NewPool();
  ASSERT_TRUE(pool->Map(3, Offer(FilledMemfd(8192, 1))).ok());
  EXPECT_TRUE(pool->Bytes(3 * 8192, 8192).ok());
  EXPECT_TRUE(pool->Bytes(4 * 8192, 0).ok());
  EXPECT_THAT(Message(pool->Bytes(3 * 8192, 8193).status()), HasSubstr("it has 32768 bytes"));
  EXPECT_FALSE(pool->Bytes(~uint64_t{0}, 2).ok());
  EXPECT_FALSE(pool->Bytes(1, ~uint64_t{0}).ok());
  EXPECT_THAT(Message(pool->Bytes(2 * 8192, 8193).status()), HasSubstr("slab 2 of pool 0"));
  EXPECT_THAT(Message(pool->Map(4, Offer(FilledMemfd(8192, 1)))), HasSubstr("slab 4 of pool 0"));
}

TEST(MappedPoolTest, RefusesWhatIsNotASlabsMemory) {
  SocketFolder folder;
  auto pool = NewPool();
  const auto refused = [&](UniqueFd fd) {
    const absl::Status status = pool->Map(0, Offer(std::move(fd)));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_FALSE(pool->IsMapped(0, 0));
    return Message(status);
  };
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  const UniqueFd other_end(pipe_fds[1]);
  EXPECT_THAT(refused(UniqueFd(pipe_fds[0])), HasSubstr("is no memory"));
  EXPECT_THAT(refused(UniqueFd()), HasSubstr("cannot be examined: Bad file descriptor"));
  EXPECT_THAT(refused(UniqueFd(open("/dev/null", O_RDWR))), HasSubstr("is no memory"));
  EXPECT_THAT(refused(UniqueFd(open("/", O_RDONLY))), HasSubstr("is no memory"));

  for (const std::string& path : {folder.Path("file"), std::string("/dev/shm/tkvs_test_file")}) {
    UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!file) continue;  // no /dev/shm here
    ASSERT_EQ(ftruncate(file.get(), 8192), 0);
    unlink(path.c_str());
    EXPECT_THAT(refused(std::move(file)),
                ::testing::AnyOf(HasSubstr("is no memory"), HasSubstr("can still be resized")));
  }
  EXPECT_THAT(refused(FilledMemfd(4096, 1)), HasSubstr("has 4096 bytes instead of 8192"));
  EXPECT_THAT(refused(FilledMemfd(12288, 1)), HasSubstr("has 12288 bytes"));
  EXPECT_THAT(refused(FilledMemfd(8192, 1, 0)), HasSubstr("can still be resized"));
  EXPECT_THAT(refused(FilledMemfd(8192, 1, F_SEAL_GROW)), HasSubstr("(seals 4, needed 6)"));
  EXPECT_THAT(refused(FilledMemfd(8192, 1, F_SEAL_SHRINK)), HasSubstr("(seals 2, needed 6)"));
  EXPECT_EQ(pool->Map(0, Offer(FilledMemfd(8192, 1), 0, ShareKind::kCudaFd)).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(MappedPoolTest, AFailedRenewalKeepsWhatWasMapped) {
  auto pool = NewPool();
  ASSERT_TRUE(pool->Map(0, Offer(FilledMemfd(8192, 1), 1)).ok());
  EXPECT_FALSE(pool->Map(0, Offer(FilledMemfd(4096, 2), 2)).ok());
  EXPECT_TRUE(pool->IsMapped(0, 1));
  EXPECT_EQ((*pool->Bytes(0, 1))[0], 1);
}

TEST(MappedPoolTest, ARenewedSlabShowsFreshMemoryAndAnOldMappingTheOld) {
  auto renewed = NewPool();
  auto old = NewPool();
  for (MappedPool* pool : {renewed.get(), old.get()}) {
    ASSERT_TRUE(pool->Map(0, Offer(FilledMemfd(8192, 1), 1)).ok());
  }
  ASSERT_TRUE(renewed->Map(0, Offer(FilledMemfd(8192, 2), 2)).ok());
  EXPECT_EQ((*renewed->Bytes(0, 1))[0], 2);
  EXPECT_EQ((*old->Bytes(0, 1))[0], 1);
  const absl::Status late = renewed->Map(0, Offer(FilledMemfd(8192, 1), 1));
  EXPECT_EQ(late.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ((*renewed->Bytes(0, 1))[0], 2);
}

TEST(MappedPoolTest, RefusesASlabOfAnotherGeometry) {
  auto pool = NewPool();
  SlabOffer offer = Offer(FilledMemfd(8192, 1));
  offer.slab.geometry.slab_count = 5;
  const absl::Status status = pool->Map(0, offer);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), HasSubstr("5 slabs of 8192 bytes, and was into 4"));
}

TEST(MappedPoolTest, ManyThreadsMapAndRead) {
  auto pool = NewPool();
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (uint32_t round = 0; round < 50; ++round) {
        const uint32_t slab = round % 4;
        ASSERT_TRUE(pool->Map(slab, Offer(FilledMemfd(8192, slab + 1))).ok());
        EXPECT_EQ((*pool->Bytes(uint64_t{slab} * 8192, 8192))[4000], slab + 1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(MappedPoolTest, LeavesNothingBehind) {
  const size_t before = OpenFds();
  const uint8_t* base;
  {
    auto pool = NewPool();
    ASSERT_TRUE(pool->Map(1, Offer(FilledMemfd(8192, 1))).ok());
    base = pool->base();
  }
  EXPECT_EQ(OpenFds(), before);
  EXPECT_NE(Permissions(base + 8192), "r--s");
}

}  // namespace
}  // namespace turbokv::testing
