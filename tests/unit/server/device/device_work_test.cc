// What streams do with pages, on every kind of device.
#include <atomic>
#include <limits>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/kernels/cpu/test_values.h"
#include "tests/unit/server/device/device_under_test.h"

namespace turbokv {
namespace {

using ::testing::AllOf;
using testing::CpuPage;
using testing::GaussianValues;
using ::testing::HasSubstr;
using testing::KvOrder;
using testing::LayoutOf;
using testing::RandomBytes;
using testing::TestKv;

constexpr PageIdentity kIdentity{3, 1, 4096, 0x1122334455667788};
constexpr int kHeads = 2;
constexpr int kHeadDim = 128;
constexpr size_t kArenaBytes = size_t{4} << 20;

class DeviceWorkTest : public testing::DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    arena_ = MakeArena(1, kArenaBytes, /*shareable=*/false);
    ASSERT_NE(arena_, nullptr);
  }
  void TearDown() override { stream_.reset(); }

  // K, then V, in device memory; the work's source.
  DeviceEncode WorkOf(const TestKv& kv, const PageLayout& layout) {
    const KvView& view = kv.view();
    const size_t tensor_bytes = size_t(view.tokens) * kHeads * kHeadDim * ValueBytes(view.type);
    raw_ = *device_->AllocateDevice(2 * tensor_bytes);
    Upload(raw_->data(), {static_cast<const uint8_t*>(view.k), tensor_bytes});
    Upload(raw_->data() + tensor_bytes, {static_cast<const uint8_t*>(view.v), tensor_bytes});
    DeviceEncode work;
    work.layout = layout;
    work.type = view.type;
    work.device_k = raw_->data();
    work.device_v = raw_->data() + tensor_bytes;
    work.token_stride = view.token_stride;
    work.head_stride = view.head_stride;
    work.identity = kIdentity;
    return work;
  }
  // Page i, from the end of the arena on, with gaps.
  uint8_t* PageAt(const PageLayout& layout, int i) const {
    return arena_->base() + kArenaBytes - static_cast<size_t>(i + 1) * (layout.page_bytes + 384);
  }

  std::unique_ptr<Arena> arena_;
  std::unique_ptr<DeviceBuffer> raw_;
};

TEST_P(DeviceWorkTest, CopiesThereAndBack) {
  const std::vector<uint8_t> bytes = RandomBytes(1'000'001, 1);
  Upload(arena_->base() + 77, bytes);
  EXPECT_EQ(Download(arena_->base() + 77, bytes.size()), bytes);
  auto buffer = device_->AllocateDevice(bytes.size());
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  EXPECT_EQ((*buffer)->size_bytes(), bytes.size());
  Upload((*buffer)->data(), bytes);
  EXPECT_EQ(Download((*buffer)->data(), bytes.size()), bytes);
}

TEST_P(DeviceWorkTest, EncodesThePagesOfTheCpuEncoder) {
  constexpr int kPages = 5;
  for (const Codec codec : {Codec::kTurbo3, Codec::kInt5, Codec::kQ8_0, Codec::kBf16}) {
    for (const ValueType type : {ValueType::kBf16, ValueType::kFp16, ValueType::kFp32}) {
      const PageLayout layout = LayoutOf(kHeads, kHeadDim, codec, codec, true);
      const TestKv kv(type, KvOrder::kNhd, kPages * kPageTokens, kHeads, kHeadDim,
                      GaussianValues(7));
      DeviceEncode work = WorkOf(kv, layout);
      // Page 2 is not wanted: runs of two.
      for (int i = 0; i < kPages; ++i) {
        work.device_pages.push_back(i == 2 ? nullptr : PageAt(layout, i));
      }
      Upload(PageAt(layout, 2), std::vector<uint8_t>(layout.page_bytes, 0x5a));
      DeviceVerdict verdict;
      ASSERT_EQ(stream_->Encode(work, &verdict), absl::OkStatus());
      ASSERT_EQ(stream_->Wait(), absl::OkStatus());
      EXPECT_EQ(verdict.bad_page, -1);
      for (int i = 0; i < kPages; ++i) {
        EXPECT_EQ(Download(PageAt(layout, i), layout.page_bytes),
                  i == 2 ? std::vector<uint8_t>(layout.page_bytes, 0x5a)
                         : CpuPage(layout, kIdentity, kv.view(), i))
            << CodecName(codec) << ", page " << i;
      }
    }
  }
}

TEST_P(DeviceWorkTest, NamesThePageThatIsNotFinite) {
  constexpr int kPages = 4;
  const PageLayout layout = LayoutOf(kHeads, kHeadDim, Codec::kTurbo4, Codec::kTurbo4, true);
  TestKv kv(ValueType::kBf16, KvOrder::kNhd, kPages * kPageTokens, kHeads, kHeadDim,
            GaussianValues(9));
  kv.SetV(3 * kPageTokens - 1, 1, 127, std::numeric_limits<float>::infinity());
  DeviceEncode work = WorkOf(kv, layout);
  // Behind a gap: the index counts pages that are not wanted as well.
  for (int i = 0; i < kPages; ++i) {
    work.device_pages.push_back(i == 0 ? nullptr : PageAt(layout, i));
  }
  DeviceVerdict verdict;
  ASSERT_EQ(stream_->Encode(work, &verdict), absl::OkStatus());
  ASSERT_EQ(stream_->Wait(), absl::OkStatus());
  EXPECT_EQ(verdict.bad_page, 2);
  EXPECT_EQ(Download(PageAt(layout, 3), layout.page_bytes),
            CpuPage(layout, kIdentity, kv.view(), 3));
  ASSERT_EQ(stream_->Encode(work, nullptr), absl::OkStatus());
  EXPECT_EQ(stream_->Wait(), absl::OkStatus());
}

TEST_P(DeviceWorkTest, TellsIntactPagesFromDamagedOnes) {
  const PageLayout layout = LayoutOf(kHeads, kHeadDim, Codec::kInt6, Codec::kTurbo3, true);
  const TestKv kv(ValueType::kBf16, KvOrder::kNhd, 3 * kPageTokens, kHeads, kHeadDim,
                  GaussianValues(13));
  std::vector<const uint8_t*> pages;
  for (int i = 0; i < 3; ++i) {
    Upload(PageAt(layout, i), CpuPage(layout, kIdentity, kv.view(), i));
    pages.push_back(PageAt(layout, i));
  }
  const auto verify = [&](const PageLayout& as) {
    DeviceVerdict verdict;
    EXPECT_EQ(stream_->VerifyChecksums(as, pages, &verdict), absl::OkStatus());
    EXPECT_EQ(stream_->Wait(), absl::OkStatus());
    return verdict.bad_page;
  };
  EXPECT_EQ(verify(layout), -1);
  for (const size_t offset : {size_t{0}, size_t{8}, size_t{12}, size_t{130}, layout.page_bytes / 2,
                              layout.page_bytes - 1}) {
    std::vector<uint8_t> page = CpuPage(layout, kIdentity, kv.view(), 1);
    page[offset] ^= 0x10;
    Upload(PageAt(layout, 1), page);
    EXPECT_EQ(verify(layout), 1) << "byte " << offset;
  }
  Upload(PageAt(layout, 1), CpuPage(layout, kIdentity, kv.view(), 1));
  EXPECT_EQ(verify(layout), -1);
  // The same size, other codecs.
  EXPECT_EQ(verify(LayoutOf(kHeads, kHeadDim, Codec::kTurbo3, Codec::kInt6, true)), 2);
}

TEST_P(DeviceWorkTest, CopiesScatteredPagesTogether) {
  constexpr size_t kSizes[] = {16, 48, 4096, 65536 + 16, 100'000};
  std::vector<uint8_t> expected;
  std::vector<DeviceCopy> copies;
  uint8_t* to = arena_->base();
  uint8_t* from = arena_->base() + kArenaBytes;
  for (const size_t size : kSizes) {
    const std::vector<uint8_t> bytes = RandomBytes(size, static_cast<uint32_t>(size));
    from -= size + 128;
    Upload(from, bytes);
    copies.push_back({from, to, size});
    to += size;
    expected.insert(expected.end(), bytes.begin(), bytes.end());
  }
  ASSERT_EQ(stream_->CopyPages(copies), absl::OkStatus());
  EXPECT_EQ(Download(arena_->base(), expected.size()), expected);
  ASSERT_EQ(stream_->CopyPages({}), absl::OkStatus());
  const DeviceCopy one{arena_->base(), arena_->base() + (1 << 20), 4096};
  ASSERT_EQ(stream_->CopyPages({one}), absl::OkStatus());
  EXPECT_EQ(Download(one.to, one.bytes), Download(one.from, one.bytes));
}

TEST_P(DeviceWorkTest, RefusesWhatKernelsCannotAddress) {
  const PageLayout layout = LayoutOf(kHeads, kHeadDim, Codec::kTurbo4, Codec::kTurbo4, true);
  const DeviceCopy copy{arena_->base() + 8, arena_->base() + 4096, 64};
  EXPECT_THAT(stream_->CopyPages({copy}).message(), AllOf(HasSubstr("copy 0"), HasSubstr("16")));
  DeviceVerdict verdict;
  const std::vector<const uint8_t*> pages = {arena_->base(), arena_->base() + 64};
  EXPECT_THAT(stream_->VerifyChecksums(layout, pages, &verdict).message(),
              AllOf(HasSubstr("page 1"), HasSubstr("128")));
  DeviceEncode work;
  work.layout = layout;
  EXPECT_THAT(stream_->Encode(work, nullptr).message(), HasSubstr("device_k"));
  EXPECT_EQ(device_->CheckShape({8, 96, Codec::kTurbo4, Codec::kTurbo4, false}).code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(device_->CheckShape({8, 256, Codec::kTurbo4, Codec::kTurbo4, false}), absl::OkStatus());
  EXPECT_EQ(device_->health(), absl::OkStatus());
}

TEST_P(DeviceWorkTest, NotifiesInOrderAndWithoutWork) {
  std::vector<int> order;  // of the stream's one notifying thread until Wait is over
  for (int i = 0; i < 100; ++i) {
    stream_->Notify([&order, i](const absl::Status& status) {
      EXPECT_EQ(status, absl::OkStatus());
      order.push_back(i);
    });
  }
  EXPECT_EQ(stream_->Wait(), absl::OkStatus());
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
}

TEST_P(DeviceWorkTest, ADestroyedStreamHasNotifiedEverything) {
  auto other = *device_->MakeStream();
  std::atomic<int> notified{0};
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(other->CopyPages({{arena_->base(), arena_->base() + (1 << 20), 1 << 16}}),
              absl::OkStatus());
    other->Notify([&](const absl::Status&) { ++notified; });
  }
  other.reset();
  EXPECT_EQ(notified, 10);
}

// More than any buffer of a stream holds at once.
TEST_P(DeviceWorkTest, TakesLongQueuesWithoutNotifications) {
  constexpr int kCalls = 300, kCopies = 500;
  std::vector<DeviceCopy> copies;
  for (int i = 0; i < kCopies; ++i) {
    copies.push_back({arena_->base() + 16 * i, arena_->base() + (1 << 20) + 16 * i, 16});
  }
  const std::vector<uint8_t> bytes = RandomBytes(16 * kCopies, 5);
  Upload(arena_->base(), bytes);
  for (int i = 0; i < kCalls; ++i) ASSERT_EQ(stream_->CopyPages(copies), absl::OkStatus());
  EXPECT_EQ(Download(arena_->base() + (1 << 20), bytes.size()), bytes);
}

TEST_P(DeviceWorkTest, ServesStreamsOfSeveralThreads) {
  constexpr int kThreads = 4, kRounds = 20;
  const PageLayout layout = LayoutOf(kHeads, kHeadDim, Codec::kTurbo3, Codec::kTurbo3, true);
  const TestKv kv(ValueType::kBf16, KvOrder::kNhd, kPageTokens, kHeads, kHeadDim,
                  GaussianValues(21));
  DeviceEncode work = WorkOf(kv, layout);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t, mine = work]() mutable {
      auto stream = *device_->MakeStream();
      mine.device_pages = {PageAt(layout, t)};
      for (int round = 0; round < kRounds; ++round) {
        DeviceVerdict encoded, verified;
        EXPECT_EQ(stream->Encode(mine, &encoded), absl::OkStatus());
        EXPECT_EQ(stream->VerifyChecksums(layout, {mine.device_pages[0]}, &verified),
                  absl::OkStatus());
        EXPECT_EQ(stream->Wait(), absl::OkStatus());
        EXPECT_EQ(encoded.bad_page, -1);
        EXPECT_EQ(verified.bad_page, -1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int t = 0; t < kThreads; ++t) {
    EXPECT_EQ(Download(PageAt(layout, t), layout.page_bytes),
              CpuPage(layout, kIdentity, kv.view(), 0));
  }
}

TURBOKV_INSTANTIATE_DEVICE_TESTS(DeviceWorkTest);

}  // namespace
}  // namespace turbokv
