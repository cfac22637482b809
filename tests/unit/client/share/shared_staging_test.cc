#include "client/share/shared_staging.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <deque>
#include <random>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/share/share_testing.h"

namespace turbokv::testing {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

constexpr StagingGeometry kGeometry = {.slot_bytes = 8192, .slots = 3};

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// Both ends of a staging region in this process, and the socket between them.
class StagingTest : public ::testing::Test {
 protected:
  StagingTest() {
    auto [client_end, server_end] = SocketPair();
    server_end_ = std::make_unique<FdSocket>(std::move(server_end));
    region_ = *StagingRegion::Create(kGeometry);
    client_ = *StagingClient::Create(UniqueFd(dup(region_->fd())), kGeometry,
                                     std::make_shared<FdSocket>(std::move(client_end)));
  }

  std::unique_ptr<FdSocket> server_end_;
  std::unique_ptr<StagingRegion> region_;
  std::unique_ptr<StagingClient> client_;
};

TEST(StagingGeometryTest, NamesTheNumberAndItsLimit) {
  EXPECT_THAT(Message(CheckStagingGeometry({4096, 0})), HasSubstr("0 slots: must be 1..256"));
  EXPECT_THAT(Message(CheckStagingGeometry({4096, 257})), HasSubstr("257 slots"));
  EXPECT_THAT(Message(CheckStagingGeometry({0, 1})), HasSubstr("slots of 0 bytes"));
  EXPECT_THAT(Message(CheckStagingGeometry({4097, 1})), HasSubstr("a multiple of 4096"));
  EXPECT_THAT(Message(CheckStagingGeometry({(uint64_t{1} << 30) + 4096, 1})),
              HasSubstr("at most 1073741824"));
  EXPECT_FALSE(CheckStagingGeometry({~uint64_t{4095}, 256}).ok());
  EXPECT_TRUE(CheckStagingGeometry({uint64_t{1} << 30, 256}).ok());
}

TEST_F(StagingTest, WhatTheClientWritesTheServerReads) {
  auto slot = client_->AcquireSlot(Soon());
  ASSERT_TRUE(slot.ok()) << slot.status();
  ASSERT_EQ(slot->bytes().size(), 8192);
  std::fill(slot->bytes().begin(), slot->bytes().end(), 42);
  const uint32_t index = slot->index();
  std::move(*slot).Announce();
  const auto bytes = region_->Slot(index, 0, 8192);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_THAT(*bytes, Each(42));
  EXPECT_THAT(*region_->Slot(index, 5000, 100), Each(42));
}

TEST_F(StagingTest, AnnouncedSlotsComeBackByReleaseOnly) {
  for (int i = 0; i < 3; ++i) std::move(*client_->AcquireSlot(Soon())).Announce();
  const absl::Status full = client_->AcquireSlot(absl::Now() + absl::Milliseconds(20)).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(Message(full), HasSubstr("all 3 are in use"));
  ASSERT_TRUE(region_->Release(1).ok());
  auto slot = client_->AcquireSlot(Soon());
  ASSERT_TRUE(slot.ok()) << slot.status();
  EXPECT_EQ(slot->index(), 1);
}

TEST_F(StagingTest, AnUnannouncedSlotIsFreeAgain) {
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(client_->AcquireSlot(absl::InfinitePast()).ok());
}

TEST_F(StagingTest, AReleaseWakesAWaitingClient) {
  for (int i = 0; i < 3; ++i) std::move(*client_->AcquireSlot(Soon())).Announce();
  std::thread server([&] {
    absl::SleepFor(absl::Milliseconds(30));
    ASSERT_TRUE(region_->Release(2).ok());
  });
  auto slot = client_->AcquireSlot(Soon());
  server.join();
  ASSERT_TRUE(slot.ok()) << slot.status();
  EXPECT_EQ(slot->index(), 2);
}

TEST_F(StagingTest, AClosedServerEndsTheWait) {
  for (int i = 0; i < 3; ++i) std::move(*client_->AcquireSlot(Soon())).Announce();
  std::thread server([&] {
    absl::SleepFor(absl::Milliseconds(30));
    server_end_.reset();
  });
  EXPECT_EQ(client_->AcquireSlot(absl::InfiniteFuture()).status().code(),
            absl::StatusCode::kUnavailable);
  server.join();
  EXPECT_EQ(client_->AcquireSlot(Soon()).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(StagingTest, ChecksWhatTheClientAnnounces) {
  constexpr uint64_t kHuge = ~uint64_t{0};
  EXPECT_THAT(Message(region_->Slot(3, 0, 1).status()), HasSubstr("slot 3: there are 3"));
  EXPECT_THAT(Message(region_->Slot(~uint32_t{0}, 0, 0).status()), HasSubstr("4294967295"));
  EXPECT_THAT(Message(region_->Slot(0, 1, 8192).status()), HasSubstr("it has 8192 bytes"));
  for (const auto& [offset, bytes] : std::vector<std::pair<uint64_t, uint64_t>>{
           {8193, 0}, {0, 8193}, {kHuge, 1}, {1, kHuge}, {kHuge, kHuge}, {8192, 1}}) {
    EXPECT_EQ(region_->Slot(0, offset, bytes).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(region_->Slot(0, 8192, 0).ok());
  EXPECT_TRUE(region_->Slot(2, 8191, 1).ok());
  EXPECT_EQ(region_->Release(3).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(StagingTest, NobodyCanResizeTheMemory) {
  EXPECT_NE(ftruncate(region_->fd(), 0), 0);
  EXPECT_NE(ftruncate(region_->fd(), 1 << 20), 0);
  EXPECT_NE(fcntl(region_->fd(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
  EXPECT_EQ(errno, EPERM);
}

TEST_F(StagingTest, HolesReadAsZeros) {
  auto slot = client_->AcquireSlot(Soon());
  ASSERT_TRUE(slot.ok());
  std::fill(slot->bytes().begin(), slot->bytes().end(), 42);
  ASSERT_EQ(fallocate(region_->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                      static_cast<off_t>(kGeometry.region_bytes())),
            0);
  EXPECT_THAT(*region_->Slot(slot->index(), 0, 8192), Each(0));
}

TEST_F(StagingTest, AClientThatScribblesOverTheHeaderHurtsOnlyItself) {
  std::mt19937 random(2);
  std::vector<uint8_t> noise(4096);
  for (int round = 0; round < 100; ++round) {
    for (uint8_t& byte : noise) byte = static_cast<uint8_t>(random());
    ASSERT_EQ(pwrite(region_->fd(), noise.data(), noise.size(), 0), 4096);
    EXPECT_EQ(region_->geometry(), kGeometry);
    EXPECT_TRUE(region_->Slot(2, 0, 8192).ok());
    EXPECT_FALSE(region_->Slot(3, 0, 1).ok());
    EXPECT_TRUE(region_->Release(round % 3).ok());
    const auto slot = client_->AcquireSlot(absl::InfinitePast());
    EXPECT_TRUE(slot.ok() || slot.status().code() == absl::StatusCode::kDeadlineExceeded);
  }
}

TEST_F(StagingTest, TheClientRefusesWhatIsNoStaging) {
  const auto refused = [&](const UniqueFd& fd) {
    const auto client = StagingClient::Create(fd, kGeometry, nullptr);
    EXPECT_EQ(client.status().code(), absl::StatusCode::kInvalidArgument);
    return Message(client.status());
  };
  const size_t bytes = kGeometry.region_bytes();
  EXPECT_THAT(refused(FilledMemfd(bytes, 0)), HasSubstr("does not begin with its header"));
  EXPECT_THAT(refused(FilledMemfd(bytes, 0, 0)), HasSubstr("can still be resized"));
  EXPECT_THAT(refused(FilledMemfd(bytes + 4096, 0)), HasSubstr("instead of 28672"));
  EXPECT_THAT(refused(UniqueFd(open("/dev/zero", O_RDWR))), HasSubstr("is no memory"));
}

TEST_F(StagingTest, SlotsGoRoundAmongManyWriters) {
  constexpr int kWriters = 4;
  constexpr int kRounds = 300;
  Mutex mutex;
  std::deque<std::pair<uint32_t, uint8_t>> announced;
  std::atomic<int> writing = kWriters;
  std::vector<std::thread> writers;
  for (int writer = 0; writer < kWriters; ++writer) {
    writers.emplace_back([&, writer] {
      for (int round = 0; round < kRounds; ++round) {
        auto slot = client_->AcquireSlot(Soon());
        ASSERT_TRUE(slot.ok()) << slot.status();
        const auto value = static_cast<uint8_t>(writer * 64 + round % 64);
        std::memset(slot->bytes().data(), value, slot->bytes().size());
        const uint32_t index = slot->index();
        std::move(*slot).Announce();
        MutexLock lock(&mutex);
        announced.emplace_back(index, value);
      }
      --writing;
    });
  }
  int served = 0;
  while (served < kWriters * kRounds) {
    std::pair<uint32_t, uint8_t> next;
    {
      MutexLock lock(&mutex);
      if (announced.empty()) {
        if (writing == 0) break;  // one of them failed
        continue;
      }
      next = announced.front();
      announced.pop_front();
    }
    const auto bytes = region_->Slot(next.first, 0, 8192);
    ASSERT_TRUE(bytes.ok());
    ASSERT_TRUE(std::all_of(bytes->begin(), bytes->end(),
                            [&](uint8_t byte) { return byte == next.second; }));
    ASSERT_TRUE(region_->Release(next.first).ok());
    ++served;
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(served, kWriters * kRounds);
}

}  // namespace
}  // namespace turbokv::testing
