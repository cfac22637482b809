// Both ends of a channel in one process, over the fake of NCCL.
#include "client/nccl/nccl_channel.h"

#include <atomic>
#include <numeric>
#include <thread>

#include "tests/unit/client/nccl/nccl_testing.h"

namespace turbokv {
namespace {

using nccl_testing::ConnectPair;
using nccl_testing::NewId;
using nccl_testing::OptionsFor;
using nccl_testing::Outcomes;
using nccl_testing::Pair;
using nccl_testing::Pattern;
using nccl_testing::PieceOf;
using nccl_testing::Soon;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr NcclDirection kSend = NcclDirection::kSend;
constexpr NcclDirection kReceive = NcclDirection::kReceive;

TEST(NcclChannelTest, MovesMessagesOfAnySize) {
  Pair pair = ConnectPair();
  for (size_t bytes : {size_t{1}, size_t{4097}, size_t{8} << 20}) {
    std::vector<uint8_t> sent = Pattern(bytes, 1);
    std::vector<uint8_t> received(bytes);
    ASSERT_TRUE(pair.service->Send({PieceOf(&sent)}, nullptr).ok());
    ASSERT_TRUE(pair.peer->Receive({PieceOf(&received)}, nullptr).ok());
    ASSERT_TRUE(pair.peer->Wait(Soon()).ok());
    ASSERT_TRUE(pair.service->Wait(Soon()).ok());
    EXPECT_EQ(received, sent);
  }
}

TEST(NcclChannelTest, MovesScatteredPiecesBothWays) {
  Pair pair = ConnectPair();
  std::vector<uint8_t> there = Pattern(5000, 2);
  std::vector<uint8_t> here(5000);
  const auto cut = [](std::vector<uint8_t>* bytes) {
    return std::vector<NcclPiece>{
        {bytes->data() + 4000, 1000}, {bytes->data(), 1}, {bytes->data() + 1, 3999}};
  };
  ASSERT_TRUE(pair.peer->Send(cut(&there), nullptr).ok());
  ASSERT_TRUE(pair.service->Receive(cut(&here), nullptr).ok());
  ASSERT_TRUE(pair.service->Wait(Soon()).ok());
  ASSERT_TRUE(pair.peer->Wait(Soon()).ok());
  EXPECT_EQ(here, there);
}

TEST(NcclChannelTest, RunsInSequenceWhateverTheOrderOfEnqueue) {
  Pair pair = ConnectPair();
  constexpr uint64_t kCount = 1000;
  std::vector<std::vector<uint8_t>> sent, received;
  for (uint64_t i = 0; i < kCount; ++i) {
    sent.push_back(Pattern(1 + i % 300, static_cast<uint32_t>(i)));
    received.emplace_back(sent[i].size());
  }
  Outcomes outcomes;
  std::thread services([&] {
    for (uint64_t i = 0; i < kCount; ++i) {
      const uint64_t sequence = i ^ 7;  // eights in reverse
      const bool sends = sequence % 3 != 0;
      EXPECT_TRUE(pair.service
                      ->Enqueue(sequence, sends ? kSend : kReceive,
                                {PieceOf(sends ? &sent[sequence] : &received[sequence])}, nullptr)
                      .ok());
    }
  });
  for (uint64_t i = 0; i < kCount; ++i) {
    const bool receives = i % 3 != 0;
    ASSERT_TRUE(pair.peer
                    ->Enqueue(i, receives ? kReceive : kSend,
                              {PieceOf(receives ? &received[i] : &sent[i])}, outcomes.Record(i))
                    .ok());
  }
  services.join();
  ASSERT_TRUE(pair.peer->Wait(Soon(absl::Seconds(60))).ok()) << pair.peer->status();
  ASSERT_TRUE(pair.service->Wait(Soon(absl::Seconds(60))).ok());
  EXPECT_EQ(received, sent);
  std::vector<uint64_t> in_order(kCount);
  std::iota(in_order.begin(), in_order.end(), 0);
  EXPECT_EQ(outcomes.names(), in_order);
  EXPECT_THAT(outcomes.statuses(), Each(absl::OkStatus()));
}

TEST(NcclChannelTest, PassesOverNumbersThatWereGivenUp) {
  Pair pair = ConnectPair();
  std::vector<uint8_t> sent = Pattern(100, 3);
  std::vector<uint8_t> received(100);
  Outcomes outcomes;
  for (NcclChannel* channel : {pair.service.get(), pair.peer.get()}) {
    ASSERT_TRUE(channel->Enqueue(0, kSend, {}, outcomes.Record(0)).ok());
  }
  ASSERT_TRUE(pair.service->Enqueue(1, kSend, {PieceOf(&sent)}, nullptr).ok());
  ASSERT_TRUE(pair.peer->Enqueue(1, kReceive, {PieceOf(&received)}, nullptr).ok());
  ASSERT_TRUE(pair.peer->Wait(Soon()).ok());
  ASSERT_TRUE(pair.service->Wait(Soon()).ok());
  EXPECT_EQ(received, sent);
  EXPECT_THAT(outcomes.statuses(), AllOf(SizeIs(2), Each(absl::OkStatus())));
}

TEST(NcclChannelTest, EndsWhenTheSequenceHasAGap) {
  Pair pair = ConnectPair(absl::Milliseconds(200));
  std::vector<uint8_t> bytes(10);
  Outcomes outcomes;
  ASSERT_TRUE(pair.service->Enqueue(1, kSend, {PieceOf(&bytes)}, outcomes.Record(1)).ok());
  const absl::Status status = pair.service->Wait(Soon());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("the peer"), HasSubstr("transfer 0 is missing"), HasSubstr("200ms")));
  EXPECT_THAT(outcomes.statuses(), testing::ElementsAre(status));
}

TEST(NcclChannelTest, EndsWhenThePeerDoesNotConnect) {
  NcclChannelOptions options = OptionsFor(NewId(), 0);
  options.connect_timeout = absl::Milliseconds(100);
  const absl::StatusOr<std::unique_ptr<NcclChannel>> channel = NcclChannel::Connect(options);
  EXPECT_EQ(channel.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(channel.status().message()),
              HasSubstr("the peer did not connect within 100ms"));
}

TEST(NcclChannelTest, EndsWhenATransferTakesTooLong) {
  Pair pair = ConnectPair(absl::Milliseconds(300));
  std::vector<uint8_t> bytes(16 << 20);
  Outcomes outcomes;
  for (uint64_t i = 0; i < 8; ++i) {
    ASSERT_TRUE(pair.service->Send({PieceOf(&bytes)}, outcomes.Record(i)).ok());
  }
  const absl::Status status = pair.service->Wait(Soon());
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("transfer 0 (send, 1 pieces, 16777216 bytes) did not finish"),
                    HasSubstr("300ms")));
  EXPECT_THAT(outcomes.statuses(), AllOf(SizeIs(8), Each(status)));
  // It stays dead.
  EXPECT_EQ(pair.service->Send({PieceOf(&bytes)}, nullptr), status);
  EXPECT_EQ(pair.service->status(), status);
}

TEST(NcclChannelTest, NoticesThatThePeerLetGo) {
  Pair pair = ConnectPair();
  std::vector<uint8_t> bytes(16 << 20);
  ASSERT_TRUE(pair.service->Send({PieceOf(&bytes)}, nullptr).ok());
  pair.peer.reset();
  const absl::Status status = pair.service->Wait(Soon(absl::Seconds(5)));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("ncclRemoteError"));
}

TEST(NcclChannelTest, EndsWhenSizesDiffer) {
  Pair pair = ConnectPair();
  std::vector<uint8_t> bytes(100);
  ASSERT_TRUE(pair.service->Send({{bytes.data(), 50}}, nullptr).ok());
  ASSERT_TRUE(pair.peer->Receive({{bytes.data() + 50, 49}}, nullptr).ok());
  const absl::Status status = pair.peer->Wait(Soon());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("ncclInvalidUsage"));
  (void)pair.service->Wait(Soon());  // done with the bytes, however it ends
}

TEST(NcclChannelTest, ClosesInOrder) {
  Pair pair = ConnectPair();
  std::vector<uint8_t> sent = Pattern(1 << 20, 4);
  std::vector<uint8_t> received(sent.size());
  Outcomes outcomes;
  ASSERT_TRUE(pair.service->Send({PieceOf(&sent)}, outcomes.Record(0)).ok());
  ASSERT_TRUE(pair.peer->Receive({PieceOf(&received)}, outcomes.Record(1)).ok());
  std::thread other([&] { pair.peer->Close(absl::Seconds(10)); });
  pair.service->Close(absl::Seconds(10));
  other.join();
  EXPECT_EQ(received, sent);
  EXPECT_THAT(outcomes.statuses(), AllOf(SizeIs(2), Each(absl::OkStatus())));
  EXPECT_EQ(pair.service->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(pair.peer->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(pair.peer->Receive({PieceOf(&received)}, nullptr).code(), absl::StatusCode::kCancelled);
}

TEST(NcclChannelTest, CloseDoesNotWaitForAPeerThatDoesNotClose) {
  Pair pair = ConnectPair();
  pair.service->Close(absl::Milliseconds(200));
  EXPECT_EQ(pair.service->status().code(), absl::StatusCode::kUnavailable);
}

TEST(NcclChannelTest, AbortsFromAnyThread) {
  for (int round = 0; round < 20; ++round) {
    Pair pair = ConnectPair();
    std::vector<uint8_t> bytes(8 << 20);
    Outcomes outcomes;
    std::atomic<int> accepted{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
      threads.emplace_back([&] {
        for (uint64_t i = 0; i < 20; ++i) {
          if (pair.service->Send({PieceOf(&bytes)}, outcomes.Record(i)).ok()) ++accepted;
        }
      });
      threads.emplace_back([&] { pair.service->Abort("a test"); });
    }
    for (std::thread& thread : threads) thread.join();
    const absl::Status status = pair.service->Wait(Soon());
    if (accepted > 0) {
      EXPECT_THAT(std::string(status.message()), HasSubstr("aborted: a test"));
    }
    EXPECT_THAT(outcomes.statuses(), SizeIs(accepted.load()));
  }
}

TEST(NcclChannelTest, AbortsWhileItConnects) {
  std::unique_ptr<NcclChannel> channel = NcclChannel::Start(OptionsFor(NewId(), 0));
  channel->Abort("a test");
  EXPECT_THAT(std::string(channel->WaitConnected(Soon()).message()), HasSubstr("aborted: a test"));
}

TEST(NcclChannelTest, TellsItsOwnerOfItsLife) {
  const NcclUniqueId id = NewId();
  std::atomic<int> connected{0};
  std::atomic<int> ended{0};
  NcclChannelOptions options = OptionsFor(id, 0);
  options.on_connected = [&] { ++connected; };
  options.on_ended = [&](const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    ++ended;
  };
  std::unique_ptr<NcclChannel> service = NcclChannel::Start(options);
  std::unique_ptr<NcclChannel> peer = NcclChannel::Start(OptionsFor(id, 1));
  ASSERT_TRUE(service->WaitConnected(Soon()).ok());
  service.reset();
  EXPECT_EQ(connected, 1);
  EXPECT_EQ(ended, 1);
}

TEST(NcclChannelTest, MayBeLetGoInACallback) {
  Pair pair = ConnectPair();
  std::vector<uint8_t> sent(10), received(10);
  std::atomic<bool> gone{false};
  std::shared_ptr<NcclChannel> last(std::move(pair.peer));
  NcclChannel* const channel = last.get();
  ASSERT_TRUE(channel
                  ->Receive({PieceOf(&received)},
                            [last = std::move(last), &gone](const absl::Status&) mutable {
                              last.reset();
                              gone = true;
                            })
                  .ok());
  ASSERT_TRUE(pair.service->Send({PieceOf(&sent)}, nullptr).ok());
  for (int i = 0; i < 1000 && !gone; ++i) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_TRUE(gone);
  // The thread that was left behind ends by itself, and this end notices.
  for (int i = 0; i < 1000 && pair.service->status().ok(); ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_FALSE(pair.service->status().ok());
}

// A device that never gets done.
class StuckStreams final : public StreamOps {
  class Stream final : public fake_nccl::FakeChannelStream {
   public:
    absl::StatusOr<bool> Reached(uint64_t) override { return false; }
  };

 public:
  absl::StatusOr<std::unique_ptr<ChannelStream>> MakeStream(int) override {
    return std::unique_ptr<ChannelStream>(std::make_unique<Stream>());
  }
};

TEST(NcclChannelTest, SaysThatTheDeviceDidNotLetGo) {
  const NcclUniqueId id = NewId();
  StuckStreams stuck;
  NcclChannelOptions options = OptionsFor(id, 0);
  options.streams = &stuck;
  options.transfer_timeout = absl::Milliseconds(100);
  std::unique_ptr<NcclChannel> service = NcclChannel::Start(options);
  std::unique_ptr<NcclChannel> peer = NcclChannel::Start(OptionsFor(id, 1));
  std::vector<uint8_t> bytes(10);
  Outcomes outcomes;
  ASSERT_TRUE(service->Send({PieceOf(&bytes)}, outcomes.Record(0)).ok());
  EXPECT_EQ(service->Wait(Soon()).code(), absl::StatusCode::kUnavailable);
  ASSERT_THAT(outcomes.statuses(), SizeIs(1));
  EXPECT_EQ(outcomes.statuses()[0].code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(outcomes.statuses()[0].message()), HasSubstr("did not let go"));
}

class NoDevice final : public StreamOps {
 public:
  absl::StatusOr<std::unique_ptr<ChannelStream>> MakeStream(int device_index) override {
    return absl::InternalError(absl::StrCat("no device ", device_index));
  }
};

TEST(NcclChannelTest, SaysThatThereIsNoDevice) {
  NoDevice none;
  NcclChannelOptions options = OptionsFor(NewId(), 0);
  options.streams = &none;
  options.device_index = 9;
  EXPECT_THAT(std::string(NcclChannel::Connect(options).status().message()),
              HasSubstr("no device 9"));
}

}  // namespace
}  // namespace turbokv
