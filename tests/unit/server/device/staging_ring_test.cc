#include "server/device/staging_ring.h"

#include <atomic>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/device/fake_device.h"

namespace turbokv {
namespace {

using ::testing::HasSubstr;
using Slot = StagingRing::Slot;

class StagingRingTest : public ::testing::Test {
 protected:
  std::unique_ptr<StagingRing> Make(uint32_t slots) {
    return *StagingRing::Create(&device_, 10'000, slots);
  }
  static absl::StatusOr<Slot> Acquire(StagingRing* ring) {
    return ring->Acquire(absl::InfiniteFuture(), nullptr);
  }

  FakeDevice device_;
};

TEST_F(StagingRingTest, GivesEachSlotOnce) {
  const auto ring = Make(3);
  EXPECT_EQ(ring->slot_bytes(), 12288u);
  std::vector<Slot> slots;
  for (uint8_t i = 0; i < 3; ++i) {
    slots.push_back(*Acquire(ring.get()));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(slots.back().data()) % 4096, 0u);
    std::memset(slots.back().data(), i, slots.back().size_bytes());
  }
  EXPECT_FALSE(ring->TryAcquire());
  EXPECT_EQ(ring->stats().in_use, 3u);
  for (uint8_t i = 0; i < 3; ++i) {
    EXPECT_EQ(slots[i].data()[0], i);
    EXPECT_EQ(slots[i].data()[slots[i].size_bytes() - 1], i);
  }
  slots[1].reset();
  slots[1].reset();
  EXPECT_EQ(ring->stats().in_use, 2u);
  Slot moved = std::move(slots[0]);
  EXPECT_FALSE(slots[0]);
  slots[2] = std::move(moved);  // gives back what it had
  EXPECT_EQ(ring->stats().in_use, 1u);
  EXPECT_EQ(ring->stats().waits, 0u);
}

TEST_F(StagingRingTest, WaitsForASlotThatIsReleased) {
  const auto ring = Make(1);
  Slot held = *Acquire(ring.get());
  std::thread other([&] {
    while (ring->stats().waits == 0) std::this_thread::yield();
    held.reset();
  });
  EXPECT_TRUE(*Acquire(ring.get()));
  other.join();
  EXPECT_EQ(ring->stats().waits, 1u);
  EXPECT_GT(ring->stats().wait_time, absl::ZeroDuration());
}

TEST_F(StagingRingTest, GivesUpAtTheDeadlineOrWhenCancelled) {
  const auto ring = Make(1);
  const Slot held = *Acquire(ring.get());
  EXPECT_EQ(ring->Acquire(absl::Now() + absl::Milliseconds(1), nullptr).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  std::atomic<int> asked{0};
  const auto cancelled = ring->Acquire(absl::InfiniteFuture(), [&] { return ++asked == 3; });
  EXPECT_EQ(cancelled.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(asked, 3);
}

TEST_F(StagingRingTest, ManyThreadsShareFewSlots) {
  constexpr int kThreads = 8, kRounds = 200;
  const auto ring = Make(2);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        const Slot slot = *Acquire(ring.get());
        std::memset(slot.data(), t, 64);
        std::this_thread::yield();
        EXPECT_EQ(slot.data()[63], t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ring->stats().in_use, 0u);
}

TEST_F(StagingRingTest, NamesTheSizeThatIsWrong) {
  EXPECT_THAT(StagingRing::Create(&device_, 0, 1).status().message(), HasSubstr("0 bytes"));
  EXPECT_THAT(StagingRing::Create(&device_, 4096, 0).status().message(), HasSubstr("0 staging"));
  EXPECT_THAT(StagingRing::Create(&device_, 4096, 65537).status().message(), HasSubstr("65537"));
}

}  // namespace
}  // namespace turbokv
