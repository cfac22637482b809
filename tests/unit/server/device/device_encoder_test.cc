// DeviceEncoder on every kind of device.
#include "server/device/device_encoder.h"

#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/kernels/cpu/test_values.h"
#include "tests/unit/server/device/device_under_test.h"

namespace turbokv {
namespace {

using testing::CpuPage;
using testing::GaussianValues;
using testing::KvOrder;
using testing::LayoutOf;
using testing::TestKv;

constexpr int kHeads = 2;
constexpr int kHeadDim = 64;
constexpr size_t kTensorBytes = size_t{2} * kPageTokens * kHeads * kHeadDim;  // of 2-byte values
constexpr uint64_t kFirstToken = 4096;

class DeviceEncoderTest : public testing::DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    arena_ = MakeArena(1, size_t{8} << 20, /*shareable=*/false);
    ring_ = *StagingRing::Create(device_.get(), 2 * kTensorBytes, 6);
    auto encoder = DeviceEncoder::Create(device_.get(), {2 * kTensorBytes, 3, 4});
    ASSERT_TRUE(encoder.ok()) << encoder.status();
    encoder_ = *std::move(encoder);
  }
  void TearDown() override {
    encoder_.reset();
    stream_.reset();
  }

  // Page `page` of `kv` to `targets`.
  void Submit(const TestKv& kv, uint32_t layer, int page,
              absl::InlinedVector<EncodeTarget, 2> targets, EncodeCompletion* completion) {
    EncodeRequest request;
    request.slot = *ring_->Acquire(absl::InfiniteFuture(), nullptr);
    const size_t offset_bytes = static_cast<size_t>(page) * kTensorBytes;
    std::memcpy(request.slot.data(), static_cast<const uint8_t*>(kv.view().k) + offset_bytes,
                kTensorBytes);
    std::memcpy(request.slot.data() + kTensorBytes,
                static_cast<const uint8_t*>(kv.view().v) + offset_bytes, kTensorBytes);
    request.identity = {layer, 0, kFirstToken + uint64_t{kPageTokens} * page, 77};
    request.targets = std::move(targets);
    encoder_->Submit(std::move(request), completion);
  }
  uint8_t* PlaceOf(int i) const { return arena_->base() + static_cast<size_t>(i) * 131072; }
  static PageIdentity IdentityOf(uint32_t layer) { return {layer, 0, kFirstToken, 77}; }
  static TestKv Values(int pages, uint32_t seed) {
    return {ValueType::kBf16, KvOrder::kNhd, pages * kPageTokens,
            kHeads,           kHeadDim,      GaussianValues(seed)};
  }

  const PageLayout layout_ = LayoutOf(kHeads, kHeadDim, Codec::kTurbo3, Codec::kTurbo3, true);
  const PageLayout tail_layout_ = LayoutOf(kHeads, kHeadDim, Codec::kBf16, Codec::kBf16, false);
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<StagingRing> ring_;
  std::unique_ptr<DeviceEncoder> encoder_;
};

TEST_P(DeviceEncoderTest, EncodesMorePagesThanThereAreSlots) {
  constexpr int kPages = 20;
  const TestKv kv = Values(kPages, 1);
  EncodeCompletion completion;
  for (int i = 0; i < kPages; ++i) Submit(kv, 5, i, {{&layout_, PlaceOf(i)}}, &completion);
  EXPECT_EQ(completion.Wait(), absl::OkStatus());
  EXPECT_EQ(completion.outstanding_pages(), 0);
  EXPECT_EQ(ring_->stats().in_use, 0u);
  EXPECT_EQ(encoder_->stats().pages, uint64_t{kPages});
  for (int i = 0; i < kPages; ++i) {
    EXPECT_EQ(Download(PlaceOf(i), layout_.page_bytes),
              CpuPage(layout_, IdentityOf(5), kv.view(), i))
        << "page " << i;
  }
}

TEST_P(DeviceEncoderTest, EncodesOnePageForTheBlockAndTheTail) {
  const TestKv kv = Values(2, 2);
  EncodeCompletion completion;
  Submit(kv, 0, 0, {{&layout_, PlaceOf(0)}}, &completion);
  Submit(kv, 0, 1, {{&layout_, PlaceOf(1)}, {&tail_layout_, PlaceOf(2)}}, &completion);
  EXPECT_EQ(completion.Wait(), absl::OkStatus());
  EXPECT_EQ(Download(PlaceOf(0), layout_.page_bytes),
            CpuPage(layout_, IdentityOf(0), kv.view(), 0));
  EXPECT_EQ(Download(PlaceOf(1), layout_.page_bytes),
            CpuPage(layout_, IdentityOf(0), kv.view(), 1));
  EXPECT_EQ(Download(PlaceOf(2), tail_layout_.page_bytes),
            CpuPage(tail_layout_, IdentityOf(0), kv.view(), 1));
}

TEST_P(DeviceEncoderTest, NamesTheFirstValueThatIsNotFinite) {
  TestKv kv = Values(4, 3);
  kv.SetV(3 * kPageTokens + 1, 0, 63, std::numeric_limits<float>::quiet_NaN());
  kv.SetK(2 * kPageTokens + 5, 1, 17, -std::numeric_limits<float>::infinity());
  EncodeCompletion completion;
  Submit(kv, 9, 2, {{&layout_, PlaceOf(0)}}, &completion);
  EXPECT_EQ(completion.Wait(),
            absl::InvalidArgumentError("layer 9: K of token 4357, head 1, channel 17 is infinite"));
  EncodeCompletion another;
  Submit(kv, 9, 3, {{&layout_, PlaceOf(1)}}, &another);
  EXPECT_EQ(another.Wait(),
            absl::InvalidArgumentError("layer 9: V of token 4481, head 0, channel 63 is NaN"));
  // Others are not concerned.
  EncodeCompletion good;
  Submit(kv, 9, 1, {{&layout_, PlaceOf(2)}}, &good);
  EXPECT_EQ(good.Wait(), absl::OkStatus());
  EXPECT_EQ(ring_->stats().in_use, 0u);
}

TEST_P(DeviceEncoderTest, ServesManyStoresAtOnce) {
  constexpr int kStores = 4, kPages = 6;
  std::vector<TestKv> values;
  for (uint32_t store = 0; store < kStores; ++store) values.push_back(Values(kPages, 10 + store));
  values[2].SetK(4 * kPageTokens, 0, 0, std::numeric_limits<float>::infinity());
  std::vector<std::thread> threads;
  for (int store = 0; store < kStores; ++store) {
    threads.emplace_back([&, store] {
      EncodeCompletion completion;
      for (int i = 0; i < kPages; ++i) {
        Submit(values[store], store, i, {{&layout_, PlaceOf(store * kPages + i)}}, &completion);
      }
      EXPECT_EQ(completion.Wait().code(),
                store == 2 ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kOk);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int store = 0; store < kStores; ++store) {
    if (store == 2) continue;
    for (int i = 0; i < kPages; ++i) {
      EXPECT_EQ(Download(PlaceOf(store * kPages + i), layout_.page_bytes),
                CpuPage(layout_, IdentityOf(store), values[store].view(), i));
    }
  }
}

TEST_P(DeviceEncoderTest, FinishesWhatWasSubmittedBeforeItEnds) {
  const TestKv kv = Values(6, 4);
  EncodeCompletion completion;
  for (int i = 0; i < 6; ++i) Submit(kv, 1, i, {{&layout_, PlaceOf(i)}}, &completion);
  encoder_.reset();
  EXPECT_EQ(completion.outstanding_pages(), 0);
  EXPECT_EQ(completion.first_error(), absl::OkStatus());
}

TURBOKV_INSTANTIATE_DEVICE_TESTS(DeviceEncoderTest);

}  // namespace
}  // namespace turbokv
