#include "server/nccl/channel_registry.h"

#include <atomic>
#include <thread>

#include "tests/unit/client/nccl/nccl_testing.h"

namespace turbokv {
namespace {

using nccl_testing::NewId;
using nccl_testing::OptionsFor;
using nccl_testing::Soon;
using ::testing::AllOf;
using ::testing::HasSubstr;

const ClientIdentity kOwner = {"tenant", "client"};
const absl::Status kReason = absl::UnavailableError("a test");

class CountingObserver final : public ChannelObserver {
 public:
  void ChannelReserved() override { ++reserved; }
  void ChannelClosed(const absl::Status&) override { ++closed; }
  std::atomic<int> reserved{0}, closed{0};
};

// The peer's end, and a channel that is known to `registry` under `name`.
struct Connected {
  uint64_t id = 0;
  std::unique_ptr<NcclChannel> peer;
};
Connected ConnectIn(ChannelRegistry* registry, const std::string& name) {
  Connected result;
  result.id = registry->Reserve(kOwner, name).value();
  const NcclUniqueId id = NewId();
  std::shared_ptr<NcclChannel> service = NcclChannel::Start(OptionsFor(id, 0));
  registry->Attach(result.id, service);
  result.peer = NcclChannel::Start(OptionsFor(id, 1));
  EXPECT_TRUE(service->WaitConnected(Soon()).ok());
  return result;
}

TEST(ChannelRegistryTest, FindsAChannelForItsOwnerAlone) {
  ChannelRegistry registry({});
  const Connected connected = ConnectIn(&registry, "rank0");
  EXPECT_TRUE(registry.Find(kOwner, connected.id).ok());
  const ClientIdentity other_tenant = {"other", "client"};
  const ClientIdentity other_client = {"tenant", "other"};
  const absl::Status unknown = registry.Find(kOwner, connected.id + 1).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kNotFound);
  for (const ClientIdentity& other : {other_tenant, other_client}) {
    EXPECT_EQ(registry.Find(other, connected.id).status().code(), absl::StatusCode::kNotFound);
  }
}

TEST(ChannelRegistryTest, RefusesASecondWorkerOfTheSameName) {
  ChannelRegistry registry({});
  const uint64_t first = registry.Reserve(kOwner, "rank0").value();
  const absl::Status status = registry.Reserve(kOwner, "rank0").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("'rank0'"), HasSubstr("two workers with the same rank")));
  EXPECT_TRUE(registry.Reserve(kOwner, "rank1").ok());
  EXPECT_TRUE(registry.Reserve({"tenant", "other"}, "rank0").ok());
  EXPECT_TRUE(registry.Reserve({"other", "client"}, "rank0").ok());
  registry.Close(first, kReason);
  const absl::StatusOr<uint64_t> again = registry.Reserve(kOwner, "rank0");
  ASSERT_TRUE(again.ok());
  EXPECT_NE(*again, first);
}

TEST(ChannelRegistryTest, BoundsTheChannels) {
  ChannelRegistry registry({.max_channels = 3, .max_channels_per_tenant = 2});
  EXPECT_TRUE(registry.Reserve(kOwner, "a").ok());
  EXPECT_TRUE(registry.Reserve(kOwner, "b").ok());
  absl::Status status = registry.Reserve(kOwner, "c").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the limit is 2"));
  EXPECT_TRUE(registry.Reserve({"other", "client"}, "a").ok());
  status = registry.Reserve({"third", "client"}, "a").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the limit is 3"));
}

TEST(ChannelRegistryTest, DoesNotGiveOutWhatIsNotConnected) {
  ChannelRegistry registry({});
  const uint64_t id = registry.Reserve(kOwner, "rank0").value();
  EXPECT_EQ(registry.Find(kOwner, id).status().code(), absl::StatusCode::kUnavailable);
  registry.Attach(id, NcclChannel::Start(OptionsFor(NewId(), 0)));
  const absl::Status status = registry.Find(kOwner, id).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("not connected yet"));
}

TEST(ChannelRegistryTest, AbortsWhatIsClosed) {
  CountingObserver observer;
  ChannelRegistry registry({}, &observer);
  const Connected connected = ConnectIn(&registry, "rank0");
  const std::shared_ptr<NcclChannel> held = *registry.Find(kOwner, connected.id);
  registry.Close(connected.id, kReason);
  EXPECT_EQ(registry.open_channels(), 0u);
  for (int i = 0; i < 500 && !held->ended(); ++i) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_THAT(std::string(held->status().message()), HasSubstr("aborted: a test"));
  registry.Reap();
  EXPECT_EQ(registry.ending_channels(), 0u);
  EXPECT_EQ(held.use_count(), 1);
  registry.Close(connected.id, kReason);  // of no effect
  EXPECT_EQ(observer.reserved, 1);
  EXPECT_EQ(observer.closed, 1);
}

TEST(ChannelRegistryTest, AbortsWhatWasClosedBeforeItWasAttached) {
  ChannelRegistry registry({});
  const uint64_t id = registry.Reserve(kOwner, "rank0").value();
  registry.Close(id, kReason);
  std::shared_ptr<NcclChannel> channel = NcclChannel::Start(OptionsFor(NewId(), 0));
  registry.Attach(id, channel);
  EXPECT_EQ(channel->WaitConnected(Soon()).code(), absl::StatusCode::kUnavailable);
}

TEST(ChannelRegistryTest, ServesManyThreads) {
  ChannelRegistry registry({});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&registry, t] {
      for (int i = 0; i < 20; ++i) {
        const auto id = registry.Reserve(kOwner, absl::StrCat("rank", (t + i) % 5));
        if (!id.ok()) continue;
        registry.Attach(*id, NcclChannel::Start(OptionsFor(NewId(), 0)));
        (void)registry.Find(kOwner, *id);
        if (i % 3 == 0) registry.Reap();
        registry.Close(*id, kReason);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(registry.open_channels(), 0u);
}

}  // namespace
}  // namespace turbokv
