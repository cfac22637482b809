// What only a fake device can be told to do: to fail, to break, to wait.
#include "server/device/fake_device.h"

#include <atomic>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/device/device_encoder.h"
#include "tests/unit/kernels/cpu/test_values.h"

namespace turbokv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::LayoutOf;

const absl::Status kBroken = absl::InternalError("an illegal memory access");
constexpr size_t kMiB = size_t{1} << 20;

FakeDeviceOptions SmallDevice() {
  FakeDeviceOptions options;
  options.total_bytes = 8 * kMiB;
  return options;
}

class FakeDeviceTest : public ::testing::Test {
 protected:
  FakeDevice device_{SmallDevice()};
  std::unique_ptr<Arena> arena_ = *device_.MakeArena(4 * kMiB, kMiB, true);
  std::unique_ptr<DeviceBuffer> pinned_ = *device_.AllocatePinned(4096);
};
using FakeDeviceDeathTest = FakeDeviceTest;

TEST_F(FakeDeviceTest, RunsOutOfMemory) {
  EXPECT_EQ(device_.free_bytes(), 4 * kMiB);
  const absl::Status status = device_.AllocateDevice(5 * kMiB).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("5242880"), HasSubstr("4194304")));
  EXPECT_EQ(device_.MakeArena(5 * kMiB, kMiB, false).status().code(),
            absl::StatusCode::kResourceExhausted);
  arena_.reset();
  EXPECT_EQ(device_.free_bytes(), 8 * kMiB);
  EXPECT_TRUE(device_.MakeArena(5 * kMiB, kMiB, false).ok());
}

TEST_F(FakeDeviceDeathTest, HostCodeCannotReachDeviceMemory) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  volatile uint8_t* const device = arena_->base();
  EXPECT_DEATH(device[0] = 1, "");
  EXPECT_DEATH(device_.Peek(arena_->base() + 4 * kMiB - 1, 2), "range of device addresses");
  uint8_t on_host = 0;
  EXPECT_DEATH(device_.Peek(&on_host, 1), "device address");
}

TEST_F(FakeDeviceTest, ACallFailsOnceWhenTold) {
  const auto stream = *device_.MakeStream();
  device_.faults().FailCall(1, absl::InternalError("cannot copy"));
  const auto copy = [&] { return stream->CopyToDevice(arena_->base(), pinned_->data(), 16); };
  EXPECT_EQ(copy(), absl::OkStatus());
  EXPECT_EQ(copy().message(), "cannot copy");
  EXPECT_EQ(copy(), absl::OkStatus());
  EXPECT_EQ(stream->Wait(), absl::OkStatus());
  EXPECT_EQ(device_.health(), absl::OkStatus());
}

TEST_F(FakeDeviceTest, WorkWaitsAtTheGate) {
  const auto stream = *device_.MakeStream();
  uint8_t* const inside = device_.Poke(arena_->base(), 1);
  device_.faults().Hold();
  pinned_->data()[0] = 42;
  ASSERT_EQ(stream->CopyToDevice(arena_->base(), pinned_->data(), 1), absl::OkStatus());
  device_.faults().AwaitHeld(1);
  EXPECT_EQ(*inside, 0);
  device_.faults().Release();
  EXPECT_EQ(stream->Wait(), absl::OkStatus());
  EXPECT_EQ(*inside, 42);
}

TEST_F(FakeDeviceTest, WorkTakesAsLongAsTold) {
  const auto stream = *device_.MakeStream();
  device_.faults().SetDelay(absl::Milliseconds(10));
  const absl::Time start = absl::Now();
  ASSERT_EQ(stream->CopyToDevice(arena_->base(), pinned_->data(), 1), absl::OkStatus());
  EXPECT_EQ(stream->Wait(), absl::OkStatus());
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(10));
}

TEST_F(FakeDeviceTest, ABrokenDeviceTellsEveryone) {
  const auto stream = *device_.MakeStream();
  device_.faults().Hold();
  pinned_->data()[0] = 42;
  ASSERT_EQ(stream->CopyToDevice(arena_->base(), pinned_->data(), 1), absl::OkStatus());
  std::vector<absl::Status> told;
  for (int i = 0; i < 3; ++i) {
    stream->Notify([&](absl::Status status) { told.push_back(std::move(status)); });
  }
  device_.faults().AwaitHeld(1);
  device_.faults().Break(kBroken);
  EXPECT_EQ(device_.health(), kBroken);
  EXPECT_EQ(stream->Wait(), kBroken);
  EXPECT_EQ(told, std::vector<absl::Status>(3, kBroken));
  EXPECT_EQ(*device_.Peek(arena_->base(), 1), 0);  // dropped
  EXPECT_EQ(stream->CopyToHost(pinned_->data(), arena_->base(), 1), kBroken);
  EXPECT_EQ(stream->CopyPages({}), kBroken);
  EXPECT_EQ(device_.MakeStream().status(), kBroken);
  EXPECT_EQ(device_.AllocateDevice(1).status(), kBroken);
  EXPECT_EQ(device_.AllocatePinned(1).status(), kBroken);
  EXPECT_EQ(device_.MakeArena(kMiB, kMiB, false).status(), kBroken);
}

// A DeviceEncoder on a device that goes wrong.
class EncoderFaultsTest : public ::testing::Test {
 protected:
  static constexpr size_t kTensorBytes = size_t{2} * kPageTokens * 64;

  EncoderFaultsTest() : arena_(*device_.MakeArena(4 * kMiB, kMiB, false)) {
    ring_ = *StagingRing::Create(&device_, 2 * kTensorBytes, 8);
    encoder_ = *DeviceEncoder::Create(&device_, {2 * kTensorBytes, 2, 3});
  }
  ~EncoderFaultsTest() override { encoder_.reset(); }

  // Zeros are finite.
  void Submit(uint64_t page, EncodeCompletion* completion, uint32_t layer = 0) {
    EncodeRequest request;
    request.slot = *ring_->Acquire(absl::InfiniteFuture(), nullptr);
    std::memset(request.slot.data(), 0, 2 * kTensorBytes);
    request.identity = {layer, 0, kPageTokens * page, 1};
    request.targets = {{&layout_, arena_->base() + 16384 * (next_place_++ % 256)}};
    encoder_->Submit(std::move(request), completion);
  }

  const PageLayout layout_ = LayoutOf(1, 64, Codec::kTurbo4, Codec::kTurbo4, true);
  std::atomic<size_t> next_place_ = 0;
  FakeDevice device_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<StagingRing> ring_;
  std::unique_ptr<DeviceEncoder> encoder_;
};

TEST_F(EncoderFaultsTest, BatchesPagesThatWait) {
  device_.faults().Hold();
  EncodeCompletion completion;
  Submit(0, &completion);
  device_.faults().AwaitHeld(1);  // page 0 alone is on a lane
  Submit(20, &completion);
  device_.faults().AwaitHeld(2);  // and page 20 on the other
  for (uint64_t page = 1; page <= 4; ++page) Submit(page, &completion);
  EXPECT_EQ(encoder_->stats().waiting_pages, 4);
  EXPECT_EQ(completion.outstanding_pages(), 6);
  device_.faults().Release();
  EXPECT_EQ(completion.Wait(), absl::OkStatus());
  EXPECT_EQ(encoder_->stats().batches, 4u);  // 0; 20; 1, 2, 3; 4
}

TEST_F(EncoderFaultsTest, ADifferentStoreOrLayerIsAnotherBatch) {
  device_.faults().Hold();
  EncodeCompletion first, second;
  Submit(30, &first);
  device_.faults().AwaitHeld(1);
  Submit(40, &first);
  device_.faults().AwaitHeld(2);
  Submit(0, &first);
  Submit(1, &second);
  Submit(1, &first, 1);
  Submit(1, &first);
  device_.faults().Release();
  EXPECT_EQ(first.Wait(), absl::OkStatus());
  EXPECT_EQ(second.Wait(), absl::OkStatus());
  EXPECT_EQ(encoder_->stats().batches, 5u);  // 30; 40; 0, 1; 1; 1
}

TEST_F(EncoderFaultsTest, SlotsAreHeldWhileTheDeviceReadsThem) {
  device_.faults().Hold();
  EncodeCompletion completion;
  for (uint64_t page = 0; page < 8; ++page) Submit(page, &completion);
  EXPECT_EQ(ring_->Acquire(absl::Now() + absl::Milliseconds(5), nullptr).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  device_.faults().Release();
  EXPECT_TRUE(ring_->Acquire(absl::InfiniteFuture(), nullptr).ok());
  EXPECT_EQ(completion.Wait(), absl::OkStatus());
  EXPECT_EQ(ring_->stats().in_use, 0u);
}

TEST_F(EncoderFaultsTest, APlainErrorConcernsItsBatchOnly) {
  device_.faults().FailCall(2, absl::InternalError("cannot launch"));  // of the first Encode
  EncodeCompletion first;
  Submit(0, &first);
  EXPECT_EQ(first.Wait().message(), "cannot launch");
  EncodeCompletion second;
  Submit(1, &second);
  EXPECT_EQ(second.Wait(), absl::OkStatus());
  EXPECT_EQ(ring_->stats().in_use, 0u);
}

TEST_F(EncoderFaultsTest, ABrokenDeviceFailsWhatIsInFlightAndWhatWaits) {
  device_.faults().Hold();
  EncodeCompletion completion;
  for (uint64_t page = 0; page < 8; ++page) Submit(page, &completion);
  device_.faults().AwaitHeld(1);
  device_.faults().Break(kBroken);
  EXPECT_EQ(completion.Wait(), kBroken);
  EXPECT_EQ(ring_->stats().in_use, 0u);
  EncodeCompletion later;
  Submit(0, &later);
  EXPECT_EQ(later.Wait(), kBroken);
}

// Whenever it happens, every page ends, and every slot comes back.
TEST_F(EncoderFaultsTest, StoresEndWhenTheDeviceBreaksUnderThem) {
  constexpr int kStores = 4, kPages = 30;
  std::atomic<int> submitted{0};
  std::vector<std::thread> stores;
  for (int store = 0; store < kStores; ++store) {
    stores.emplace_back([&] {
      EncodeCompletion completion;
      for (uint64_t page = 0; page < kPages; ++page) {
        Submit(page, &completion);
        ++submitted;
      }
      const absl::Status status = completion.Wait();
      EXPECT_TRUE(status.ok() || status == kBroken) << status;  // done before, perhaps
    });
  }
  while (submitted < kStores * kPages / 2) std::this_thread::yield();
  device_.faults().Break(kBroken);
  for (std::thread& store : stores) store.join();
  EXPECT_EQ(ring_->stats().in_use, 0u);
  EXPECT_EQ(encoder_->stats().pages, uint64_t{kStores * kPages});
}

TEST_F(EncoderFaultsTest, TakesNoEmptyOptions) {
  EXPECT_EQ(DeviceEncoder::Create(&device_, {0, 1, 1}).status().code(),
            absl::StatusCode::kInvalidArgument);
  FakeDevice small(SmallDevice());
  EXPECT_EQ(DeviceEncoder::Create(&small, {kMiB, 4, 4}).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace turbokv
