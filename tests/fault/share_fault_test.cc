// Processes that share memory and are killed: whatever they were doing, the other side goes on, and
// what they had comes back.
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <atomic>
#include <random>
#include <thread>

#include "base/logging.h"
#include "client/share/mapped_pool.h"
#include "client/share/share_session.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/share/share_server.h"
#include "tests/unit/client/share/share_testing.h"
#include "tests/unit/server/share/fake_share_host.h"

namespace turbokv::testing {
namespace {

using ::testing::Each;

// A share_worker process, killed with this object at the latest.
class Worker {
 public:
  Worker(const std::string& mode, const std::string& path) {
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) std::abort();
    const std::string binary = absl::StrCat(TURBOKV_BINARY_DIR, "/share_worker");
    const char* argv[] = {binary.c_str(), mode.c_str(), path.c_str(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    if (posix_spawn(&pid_, argv[0], &actions, nullptr, const_cast<char**>(argv), environ) != 0) {
      std::abort();
    }
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    input_ = UniqueFd(in[1]);
    output_ = UniqueFd(out[0]);
  }
  ~Worker() { Kill(); }

  pid_t pid() const { return pid_; }

  void Kill() {
    if (std::exchange(dead_, true)) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  // Empty at the end of the worker's output.
  std::string ReadLine() {
    std::string line;
    for (char c; read(output_.get(), &c, 1) == 1 && c != '\n';) line += c;
    return line;
  }
  std::string Ask() {
    EXPECT_EQ(write(input_.get(), "\n", 1), 1);
    return ReadLine();
  }

 private:
  pid_t pid_ = 0;
  bool dead_ = false;
  UniqueFd input_, output_;
};

class ShareFaultTest : public ::testing::Test {
 protected:
  ShareFaultTest() : path_(folder_.Path("s")) { (void)SetLogLevel("warning"); }
  ~ShareFaultTest() override { (void)SetLogLevel("info"); }

  void StartServer() {
    auto server = ShareServer::Start({.path = path_}, &host_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  bool ServerIsEmpty() {
    return server_->stats().sessions == 0 && server_->stats().staging_bytes == 0 &&
           host_.open_sessions().empty();
  }

  SocketFolder folder_;
  const std::string path_;
  FakeShareHost host_;
  std::unique_ptr<ShareServer> server_;
};

TEST_F(ShareFaultTest, AClientKilledInAStagedWriteIsReclaimed) {
  StartServer();
  const size_t before = OpenFds();
  {
    Worker worker("stage", path_);
    ASSERT_EQ(worker.ReadLine(), "ready");
    const auto open = host_.open_sessions();
    ASSERT_EQ(open.size(), 1);
    EXPECT_EQ(open[0].peer.pid, worker.pid());
    auto region = server_->FindStaging(open[0].session_id);
    ASSERT_NE(region, nullptr);
    // The server is reading when the client dies, and goes on.
    std::atomic<bool> stop = false;
    std::thread reader([&] {
      uint64_t sum = 0;
      while (!stop) {
        const auto bytes = region->Slot(0, 0, region->geometry().slot_bytes);
        ASSERT_TRUE(bytes.ok()) << bytes.status();
        for (const uint8_t byte : *bytes) sum += byte;
        ASSERT_TRUE(region->Release(0).ok());
      }
      EXPECT_GT(sum, 0);
    });
    absl::SleepFor(absl::Milliseconds(20));
    worker.Kill();
    EXPECT_TRUE(Eventually([&] { return host_.open_sessions().empty(); }));
    EXPECT_EQ(server_->FindStaging(open[0].session_id), nullptr);
    stop = true;
    reader.join();
    const auto bytes = *region->Slot(0, 0, region->geometry().slot_bytes);
    EXPECT_NE(bytes.front(), 0);
    EXPECT_GT(server_->stats().staging_bytes, 0);
  }
  EXPECT_TRUE(Eventually([&] { return ServerIsEmpty() && OpenFds() == before; }));
}

TEST_F(ShareFaultTest, AClientKilledInAMappedReadIsReclaimed) {
  StartServer();
  const size_t before = OpenFds();
  {
    Worker worker("read", path_);
    ASSERT_EQ(worker.ReadLine(), "ready");
    EXPECT_EQ(host_.open_sessions().size(), 1);
    worker.Kill();
  }
  EXPECT_TRUE(Eventually([&] { return ServerIsEmpty() && OpenFds() == before; }));
}

TEST_F(ShareFaultTest, AProcessKeepsItsOldMappingOfARenewedSlab) {
  StartServer();
  Worker old("read", path_);
  ASSERT_EQ(old.ReadLine(), "ready");
  EXPECT_EQ(old.Ask(), "1");
  host_.Renew(0, 77);
  EXPECT_EQ(old.Ask(), "1");
  const std::shared_ptr<ShareSession> session = *ShareSession::Connect({.path = path_});
  const auto pool = *MappedPool::Create(session, 0, FakeShareHost::kGeometry,
                                        *MakeHostSlabImporter(FakeShareHost::kGeometry));
  ASSERT_TRUE(pool->Ensure(1, 0, 1).ok());
  EXPECT_THAT(*pool->Bytes(0, FakeShareHost::kGeometry.slab_bytes), Each(77));
  EXPECT_EQ(old.Ask(), "1");
}

TEST_F(ShareFaultTest, AClientWhoseChildKeepsTheSocketIsReclaimed) {
  StartServer();
  {
    // Whether this system can tell.
    const FdListener listener = *FdListener::Listen(folder_.Path("probe"));
    const FdSocket probe = *FdSocket::Connect(folder_.Path("probe"), Soon());
    if (!probe.PeerProcess()) GTEST_SKIP() << "no SO_PEERPIDFD (Linux 6.5)";
  }
  Worker worker("fork", path_);
  const pid_t child = std::stoi(worker.ReadLine());
  ASSERT_EQ(worker.ReadLine(), "ready");
  EXPECT_EQ(host_.open_sessions().size(), 1);
  worker.Kill();
  EXPECT_TRUE(Eventually([&] { return ServerIsEmpty(); }));
  EXPECT_EQ(kill(child, SIGKILL), 0) << "the child was there all the time";
}

TEST_F(ShareFaultTest, ClientsKilledAtAnyInstantAreReclaimed) {
  StartServer();
  const size_t before = OpenFds();
  std::mt19937 random(3);
  for (int round = 0; round < 60; ++round) {
    Worker worker("churn", path_);
    if (round % 2 == 0) {
      ASSERT_EQ(worker.ReadLine(), "ready");
    }
    absl::SleepFor(absl::Microseconds(random() % 5000));
    worker.Kill();
  }
  EXPECT_TRUE(Eventually([&] { return ServerIsEmpty() && OpenFds() == before; }));
  EXPECT_EQ(server_->stats().protocol_errors, 0) << "dying is no error";
}

TEST_F(ShareFaultTest, AClientWaitingForASlotLearnsThatTheServerWasKilled) {
  Worker server("serve", path_);
  ASSERT_EQ(server.ReadLine(), "ready");
  const std::shared_ptr<ShareSession> session = *ShareSession::Connect({.path = path_});
  const auto staging = *session->OpenStaging({.slot_bytes = 4096, .slots = 1});
  std::move(*staging->AcquireSlot(Soon())).Announce();
  std::thread killer([&] {
    absl::SleepFor(absl::Milliseconds(100));
    server.Kill();
  });
  // A wait that went on until its deadline would be the error of the deadline.
  EXPECT_EQ(staging->AcquireSlot(Soon()).status().code(), absl::StatusCode::kUnavailable);
  killer.join();
  EXPECT_EQ(session->MapSlab(1, 0, 0).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ShareFaultTest, WhatIsMappedStaysReadableWhenTheServerIsKilled) {
  Worker server("serve", path_);
  ASSERT_EQ(server.ReadLine(), "ready");
  const std::shared_ptr<ShareSession> session = *ShareSession::Connect({.path = path_});
  const auto pool = *MappedPool::Create(session, 0, FakeShareHost::kGeometry,
                                        *MakeHostSlabImporter(FakeShareHost::kGeometry));
  ASSERT_TRUE(pool->Ensure(1, 3, 0).ok());
  server.Kill();
  EXPECT_TRUE(Eventually([&] { return !session->alive(); }));
  EXPECT_THAT(*pool->Bytes(3 * 16384, 16384), Each(4));
  EXPECT_TRUE(pool->Ensure(1, 3, 0).ok());
  EXPECT_EQ(pool->Ensure(1, 2, 0).code(), absl::StatusCode::kUnavailable);
}

TEST_F(ShareFaultTest, AServerTakesThePlaceOfAKilledOne) {
  {
    Worker server("serve", path_);
    ASSERT_EQ(server.ReadLine(), "ready");
  }
  ASSERT_TRUE(std::filesystem::exists(path_));
  EXPECT_EQ(ShareSession::Connect({.path = path_}).status().code(), absl::StatusCode::kUnavailable);
  StartServer();
  EXPECT_TRUE(ShareSession::Connect({.path = path_}).ok());
}

}  // namespace
}  // namespace turbokv::testing
