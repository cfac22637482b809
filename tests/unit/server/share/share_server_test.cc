#include "server/share/share_server.h"

#include <sys/resource.h>

#include <array>
#include <random>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "client/share/mapped_pool.h"
#include "client/share/share_session.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/share/byte_budget.h"
#include "server/share/log_limiter.h"
#include "tests/unit/client/share/share_testing.h"
#include "tests/unit/server/share/fake_share_host.h"

namespace turbokv::testing {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

constexpr StagingGeometry kStaging = {.slot_bytes = 8192, .slots = 2};

std::string Message(const absl::Status& status) { return std::string(status.message()); }

class ShareServerTest : public ::testing::Test {
 protected:
  ShareServerTest() { options_.path = folder_.Path("share.sock"); }

  void Start() {
    auto server = ShareServer::Start(options_, &host_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  absl::StatusOr<std::shared_ptr<ShareSession>> Connect(const std::string& client = "c") {
    return ShareSession::Connect({.path = options_.path, .identity = {"t", client}});
  }

  FdSocket ConnectRaw() { return *FdSocket::Connect(options_.path, Soon()); }

  // Sends `message` and waits for the connection's end; whether one reply came before it.
  bool ClosedAfter(FdSocket* socket, const std::vector<uint8_t>& message,
                   const std::vector<int>& fds = {}) {
    EXPECT_TRUE(SendRaw(socket->fd(), message, fds));
    std::array<uint8_t, kMaxShareMessageBytes> buffer;
    return socket->Receive(absl::MakeSpan(buffer), Soon()).status().code() ==
           absl::StatusCode::kUnavailable;
  }

  void Greet(FdSocket* socket) {
    std::array<uint8_t, kMaxShareMessageBytes> buffer;
    ASSERT_TRUE(socket->Send(EncodeShareRequest(ShareIdentity{"t", "raw"}), -1, Soon()).ok());
    ASSERT_TRUE(socket->Receive(absl::MakeSpan(buffer), Soon()).ok());
  }

  SocketFolder folder_;
  ShareServerOptions options_;
  FakeShareHost host_;
  std::unique_ptr<ShareServer> server_;
};

TEST(ByteBudgetTest, GivesBackWhatIsDropped) {
  auto budget = std::make_shared<ByteBudget>(100);
  {
    auto first = ByteBudget::Take(budget, 60);
    ASSERT_TRUE(first.ok());
    EXPECT_THAT(Message(ByteBudget::Take(budget, 41).status()),
                HasSubstr("41 bytes: 60 of 100 are in use"));
    EXPECT_EQ(ByteBudget::Take(budget, ~uint64_t{0}).status().code(),
              absl::StatusCode::kResourceExhausted);
    auto moved = *std::move(first);
    EXPECT_TRUE(ByteBudget::Take(budget, 40).ok());
    EXPECT_EQ(budget->used_bytes(), 60);
  }
  EXPECT_EQ(budget->used_bytes(), 0);
}

TEST(LogLimiterTest, AllowsSoManyLinesASecondAndCountsTheRest) {
  LogLimiter limiter(2);
  const absl::Time start = absl::UnixEpoch();
  EXPECT_TRUE(limiter.Allow(start));
  EXPECT_TRUE(limiter.Allow(start));
  EXPECT_FALSE(limiter.Allow(start + absl::Milliseconds(999)));
  EXPECT_TRUE(limiter.Allow(start + absl::Seconds(1)));
  EXPECT_EQ(limiter.TakeSuppressed(), 1);
  EXPECT_EQ(limiter.TakeSuppressed(), 0);
}

TEST_F(ShareServerTest, ChecksOptions) {
  options_.max_sessions = 0;
  EXPECT_THAT(Message(ShareServer::Start(options_, &host_).status()),
              HasSubstr("max_sessions 0: must be 1..65536"));
  options_.max_sessions = 1;
  options_.hello_timeout = absl::ZeroDuration();
  EXPECT_THAT(Message(ShareServer::Start(options_, &host_).status()), HasSubstr("hello_timeout"));
  options_.hello_timeout = absl::Seconds(1);
  options_.path = "/nowhere/s";
  EXPECT_THAT(Message(ShareServer::Start(options_, &host_).status()), HasSubstr("/nowhere"));
}

TEST_F(ShareServerTest, TellsTheHostWhoComesAndGoes) {
  Start();
  auto session = Connect("worker-1");
  ASSERT_TRUE(session.ok()) << session.status();
  const auto open = host_.open_sessions();
  ASSERT_EQ(open.size(), 1);
  EXPECT_EQ(open[0].session_id, (*session)->session_id());
  EXPECT_EQ(open[0].identity.tenant, "t");
  EXPECT_EQ(open[0].identity.client, "worker-1");
  EXPECT_EQ(open[0].peer.pid, getpid());
  EXPECT_EQ(open[0].peer.uid, getuid());
  session->reset();
  EXPECT_TRUE(Eventually([&] { return host_.open_sessions().empty(); }));
  EXPECT_TRUE(Eventually([&] { return server_->stats().sessions == 0; }));
}

TEST_F(ShareServerTest, SessionsMapSlabsOfTheHost) {
  Start();
  auto session = Connect();
  ASSERT_TRUE(session.ok());
  EXPECT_EQ((*session)->MapSlab(0, 0, 0).status(),
            absl::NotFoundError("lease 0: unknown or expired"));
  EXPECT_EQ((*session)->MapSlab(1, 0, 9).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE((*session)->alive());
  auto pool = *MappedPool::Create(*session, 0, FakeShareHost::kGeometry,
                                  *MakeHostSlabImporter(FakeShareHost::kGeometry));
  ASSERT_TRUE(pool->Ensure(1, 2, 0).ok());
  EXPECT_THAT(*pool->Bytes(2 * 16384, 16384), Each(3));
  ASSERT_TRUE(pool->Ensure(1, 2, 0).ok());
  EXPECT_EQ(server_->stats().mapped_slabs, 1) << "a mapped slab is not asked for again";
}

TEST_F(ShareServerTest, ARenewedSlabIsMappedAgain) {
  Start();
  auto session = Connect();
  ASSERT_TRUE(session.ok());
  const auto new_pool = [&] {
    return *MappedPool::Create(*session, 0, FakeShareHost::kGeometry,
                               *MakeHostSlabImporter(FakeShareHost::kGeometry));
  };
  auto pool = new_pool();
  auto old = new_pool();
  ASSERT_TRUE(pool->Ensure(1, 0, 0).ok());
  ASSERT_TRUE(old->Ensure(1, 0, 0).ok());
  host_.Renew(0, 99);
  ASSERT_TRUE(pool->Ensure(1, 0, 1).ok());
  EXPECT_THAT(*pool->Bytes(0, 16384), Each(99));
  EXPECT_THAT(*old->Bytes(0, 16384), Each(1));
  const absl::Status stale = new_pool()->Ensure(1, 0, 0);
  EXPECT_EQ(stale.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(stale), HasSubstr("generation 1 by now, not 0"));
}

TEST_F(ShareServerTest, StagingGoesFromClientToServer) {
  Start();
  auto session = Connect();
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(server_->FindStaging((*session)->session_id()), nullptr);
  auto staging = (*session)->OpenStaging(kStaging);
  ASSERT_TRUE(staging.ok()) << staging.status();
  auto slot = (*staging)->AcquireSlot(Soon());
  ASSERT_TRUE(slot.ok());
  std::memset(slot->bytes().data(), 5, 8192);
  const uint32_t index = slot->index();
  std::move(*slot).Announce();
  const auto region = server_->FindStaging((*session)->session_id());
  ASSERT_NE(region, nullptr);
  EXPECT_THAT(*region->Slot(index, 0, 8192), Each(5));
  EXPECT_TRUE(region->Release(index).ok());
  EXPECT_EQ(server_->FindStaging((*session)->session_id() + 1), nullptr);
  EXPECT_EQ((*session)->OpenStaging(kStaging).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(ShareServerTest, StagingThatIsBeingReadOutlivesItsSession) {
  Start();
  auto session = Connect();
  ASSERT_TRUE(session.ok());
  const uint64_t id = (*session)->session_id();
  auto staging = (*session)->OpenStaging(kStaging);
  ASSERT_TRUE(staging.ok());
  auto slot = (*staging)->AcquireSlot(Soon());
  ASSERT_TRUE(slot.ok());
  std::memset(slot->bytes().data(), 5, 8192);
  const uint32_t index = slot->index();
  auto region = server_->FindStaging(id);
  session->reset();
  ASSERT_TRUE(Eventually([&] { return host_.open_sessions().empty(); }));
  EXPECT_EQ(server_->FindStaging(id), nullptr);
  EXPECT_EQ(server_->stats().staging_bytes, kStaging.region_bytes()) << "still charged";
  EXPECT_THAT(*region->Slot(index, 0, 8192), Each(5));
  region.reset();
  EXPECT_EQ(server_->stats().staging_bytes, 0);
}

TEST_F(ShareServerTest, StagingIsBoundedForASessionAndForAll) {
  options_.max_session_staging_bytes = kStaging.region_bytes();
  options_.max_staging_bytes = 2 * kStaging.region_bytes();
  Start();
  std::vector<std::shared_ptr<ShareSession>> sessions;
  for (int i = 0; i < 3; ++i) sessions.push_back(*Connect());
  const absl::Status large = sessions[0]->OpenStaging({8192, 3}).status();
  EXPECT_EQ(large.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(large), HasSubstr("28672 bytes: a session may have 20480"));
  EXPECT_TRUE(sessions[0]->OpenStaging(kStaging).ok()) << "a refusal does no harm";
  EXPECT_TRUE(sessions[1]->OpenStaging(kStaging).ok());
  const absl::Status full = sessions[2]->OpenStaging(kStaging).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(full), HasSubstr("40960 of 40960 are in use"));
  sessions[0].reset();
  EXPECT_TRUE(Eventually([&] { return sessions[2]->OpenStaging(kStaging).ok(); }));
}

TEST_F(ShareServerTest, MoreSessionsThanTheLimitAreRefusedWithAReason) {
  options_.max_sessions = 3;
  Start();
  std::vector<std::shared_ptr<ShareSession>> sessions;
  for (int i = 0; i < 3; ++i) sessions.push_back(*Connect());
  for (int i = 0; i < 20; ++i) {
    const absl::Status refused = Connect().status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
    EXPECT_THAT(Message(refused), HasSubstr("its 3 sessions"));
  }
  EXPECT_EQ(server_->stats().refused_sessions, 20);
  sessions.pop_back();
  EXPECT_TRUE(Eventually([&] { return Connect().ok(); }));
  EXPECT_TRUE(sessions[0]->MapSlab(1, 0, 0).ok());
}

TEST_F(ShareServerTest, GarbageEndsItsConnectionOnly) {
  Start();
  auto session = Connect();
  ASSERT_TRUE(session.ok());
  std::vector<uint8_t> other_type = EncodeShareRequest(MapSlabRequest{});
  other_type[6] = 9;
  std::vector<uint8_t> cut = EncodeShareRequest(ShareIdentity{"t", "c"});
  cut.pop_back();
  const std::vector<std::vector<uint8_t>> messages = {
      {1},
      {1, 2, 3, 4, 5, 6, 7, 8, 9},
      std::vector<uint8_t>(kMaxShareMessageBytes, 0),
      std::vector<uint8_t>(kMaxShareMessageBytes + 1, 0),
      std::vector<uint8_t>(100000, 0xff),
      other_type,
      cut,
      EncodeShareRequest(ShareIdentity{"a b", "c"}),
      EncodeShareRequest(MapSlabRequest{1, 0, 0}),
      EncodeShareRequest(OpenStagingRequest{kStaging}),
      EncodeHelloReply(uint64_t{4}),
  };
  uint64_t errors = 0;
  for (const std::vector<uint8_t>& message : messages) {
    FdSocket socket = ConnectRaw();
    EXPECT_TRUE(ClosedAfter(&socket, message)) << message.size();
    EXPECT_EQ(server_->stats().protocol_errors, ++errors);
  }
  for (const std::vector<uint8_t>& message :
       {EncodeShareRequest(ShareIdentity{"t", "c"}), cut, std::vector<uint8_t>{1}}) {
    FdSocket socket = ConnectRaw();
    Greet(&socket);
    EXPECT_TRUE(ClosedAfter(&socket, message)) << "after the greeting";
  }
  EXPECT_TRUE((*session)->MapSlab(1, 0, 0).ok());
  EXPECT_TRUE(Eventually([&] { return host_.open_sessions().size() == 1; }));
}

TEST_F(ShareServerTest, DescriptorsFromAClientAreNotTaken) {
  Start();
  const UniqueFd memory = FilledMemfd(4096, 1);
  ASSERT_TRUE(Connect().ok());
  ASSERT_TRUE(Eventually([&] { return server_->stats().sessions == 0; }));
  const size_t before = OpenFds();
  for (const size_t count : {1, 2, 253}) {
    FdSocket socket = ConnectRaw();
    EXPECT_TRUE(ClosedAfter(&socket, EncodeShareRequest(ShareIdentity{}),
                            std::vector<int>(count, memory.get())));
  }
  EXPECT_EQ(host_.opened(), 1);
  EXPECT_TRUE(Eventually([&] { return OpenFds() == before; }));
}

TEST_F(ShareServerTest, AnotherVersionIsToldSo) {
  Start();
  std::vector<uint8_t> hello = EncodeShareRequest(ShareIdentity{});
  hello[4] = 2;
  FdSocket socket = ConnectRaw();
  ASSERT_TRUE(socket.Send(hello, -1, Soon()).ok());
  std::array<uint8_t, kMaxShareMessageBytes> buffer;
  const auto bytes = socket.Receive(absl::MakeSpan(buffer), Soon());
  ASSERT_TRUE(bytes.ok());
  const absl::Status status = DecodeHelloReply(absl::MakeConstSpan(buffer).first(*bytes)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(status), HasSubstr("version 2: this build speaks 1"));
}

TEST_F(ShareServerTest, AClientThatAsksWithoutListeningIsClosed) {
  Start();
  FdSocket socket = ConnectRaw();
  Greet(&socket);
  const std::vector<uint8_t> request = EncodeShareRequest(MapSlabRequest{1, 0, 0});
  while (SendRaw(socket.fd(), request, {})) {
  }
  EXPECT_TRUE(Eventually([&] { return server_->stats().sessions == 0; }));
  EXPECT_EQ(server_->stats().protocol_errors, 1);
  EXPECT_LE(server_->stats().mapped_slabs, 2);
}

TEST_F(ShareServerTest, AConnectionThatSaysNothingIsClosed) {
  options_.hello_timeout = absl::Milliseconds(50);
  Start();
  auto session = Connect();
  std::vector<FdSocket> silent;
  for (int i = 0; i < 10; ++i) silent.push_back(ConnectRaw());
  EXPECT_TRUE(Eventually(
      [&] { return server_->stats().protocol_errors == 10 && server_->stats().sessions == 1; }));
  EXPECT_TRUE((*session)->MapSlab(1, 0, 0).ok()) << "a session may be idle";
}

TEST_F(ShareServerTest, AThousandSessionsLeaveNoDescriptors) {
  Start();
  ASSERT_TRUE(Connect().ok());
  ASSERT_TRUE(Eventually([&] { return server_->stats().sessions == 0; }));
  const size_t before = OpenFds();
  for (int i = 0; i < 1000; ++i) {
    auto session = Connect();
    ASSERT_TRUE(session.ok()) << i << ": " << session.status();
    if (i % 3 == 0) {
      ASSERT_TRUE((*session)->OpenStaging(kStaging).ok());
    }
    ASSERT_TRUE((*session)->MapSlab(1, 0, i % 4).ok());
  }
  EXPECT_TRUE(Eventually([&] { return server_->stats().sessions == 0; }));
  EXPECT_TRUE(Eventually([&] { return OpenFds() == before; })) << OpenFds() << " of " << before;
  EXPECT_EQ(server_->stats().staging_bytes, 0);
  EXPECT_EQ(host_.opened(), 1001);
  EXPECT_TRUE(host_.open_sessions().empty());
}

TEST_F(ShareServerTest, ManyClientsAtOnce) {
  Start();
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937 random(thread);
      for (int round = 0; round < 40; ++round) {
        if (random() % 4 == 0) {
          FdSocket socket = ConnectRaw();
          std::vector<uint8_t> noise(1 + random() % 400);
          for (uint8_t& byte : noise) byte = static_cast<uint8_t>(random());
          SendRaw(socket.fd(), noise, {});
          continue;
        }
        auto session = Connect();
        ASSERT_TRUE(session.ok()) << session.status();
        auto staging = (*session)->OpenStaging(kStaging);
        ASSERT_TRUE(staging.ok()) << staging.status();
        const auto region = server_->FindStaging((*session)->session_id());
        ASSERT_NE(region, nullptr);
        for (int i = 0; i < 5; ++i) {
          auto slot = (*staging)->AcquireSlot(Soon());
          ASSERT_TRUE(slot.ok()) << slot.status();
          slot->bytes()[0] = static_cast<uint8_t>(i);
          const uint32_t index = slot->index();
          std::move(*slot).Announce();
          EXPECT_EQ((*region->Slot(index, 0, 1))[0], i);
          EXPECT_TRUE(region->Release(index).ok());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(Eventually([&] { return server_->stats().sessions == 0; }));
  EXPECT_EQ(server_->stats().staging_bytes, 0);
}

TEST_F(ShareServerTest, StoppingEndsEverySession) {
  Start();
  auto session = Connect();
  ASSERT_TRUE(session.ok());
  auto staging = (*session)->OpenStaging(kStaging);
  ASSERT_TRUE(staging.ok());
  for (int i = 0; i < 2; ++i) std::move(*(*staging)->AcquireSlot(Soon())).Announce();
  std::thread stopper([&] {
    absl::SleepFor(absl::Milliseconds(30));
    server_.reset();
  });
  EXPECT_EQ((*staging)->AcquireSlot(absl::InfiniteFuture()).status().code(),
            absl::StatusCode::kUnavailable);
  stopper.join();
  EXPECT_TRUE(host_.open_sessions().empty());
  EXPECT_FALSE((*session)->alive());
  EXPECT_FALSE(std::filesystem::exists(options_.path));
  EXPECT_EQ((*session)->MapSlab(1, 0, 0).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ShareServerTest, RunningOutOfDescriptorsPausesAndRecovers) {
  Start();
  auto session = Connect();
  ASSERT_TRUE(session.ok());
  FdSocket waiting;
  {
    std::vector<UniqueFd> hoard;
    rlimit limit;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    const rlimit low = {.rlim_cur = 256, .rlim_max = limit.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
    const absl::Cleanup restore = [&] { setrlimit(RLIMIT_NOFILE, &limit); };
    // One is left for the client's own socket.
    while (true) {
      UniqueFd fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
      if (!fd) break;
      hoard.push_back(std::move(fd));
    }
    hoard.pop_back();
    waiting = ConnectRaw();
    absl::SleepFor(absl::Milliseconds(50));
    EXPECT_EQ(server_->stats().sessions, 1);
    EXPECT_TRUE((*session)->alive());
  }
  EXPECT_TRUE(Eventually([&] { return server_->stats().sessions == 2; }));
  Greet(&waiting);
}

}  // namespace
}  // namespace turbokv::testing
