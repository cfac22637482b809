// A channel whose peer is another process, which may be killed at any time.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/escaping.h"
#include "tests/unit/client/nccl/nccl_testing.h"

extern char** environ;

namespace turbokv {
namespace {

using nccl_testing::FakeLibrary;
using nccl_testing::NewId;
using nccl_testing::OptionsFor;
using nccl_testing::Outcomes;
using nccl_testing::Pattern;
using nccl_testing::PieceOf;
using nccl_testing::Soon;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class Peer {
 public:
  Peer(const NcclUniqueId& id, std::vector<std::string> mode) {
    std::vector<std::string> words = {
        absl::StrCat(TURBOKV_BINARY_DIR, "/nccl_test_peer"), FakeLibrary(),
        absl::BytesToHexString(absl::string_view(id.bytes, sizeof(id.bytes)))};
    words.insert(words.end(), mode.begin(), mode.end());
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    EXPECT_EQ(posix_spawn(&pid_, arguments[0], nullptr, nullptr, arguments.data(), environ), 0);
  }
  ~Peer() {
    if (pid_ > 0) Kill();
  }
  void Kill() {
    kill(pid_, SIGKILL);
    WaitForExit();
  }
  int WaitForExit() {
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_ = -1;
};

size_t OpenFiles() {
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    (void)entry;
    ++files;
  }
  return files;
}

TEST(NcclProcessTest, EchoesThroughAnotherProcess) {
  const NcclUniqueId id = NewId();
  Peer peer(id, {"echo", "20", "1000003"});
  auto channel = NcclChannel::Connect(OptionsFor(id, 0));
  ASSERT_TRUE(channel.ok()) << channel.status();
  std::vector<std::vector<uint8_t>> sent, back;
  for (uint32_t i = 0; i < 20; ++i) {
    sent.push_back(Pattern(1000003, i));
    back.emplace_back(sent.back().size());
  }
  for (size_t i = 0; i < sent.size(); ++i) {
    ASSERT_TRUE((*channel)->Send({PieceOf(&sent[i])}, nullptr).ok());
    ASSERT_TRUE((*channel)->Receive({PieceOf(&back[i])}, nullptr).ok());
  }
  ASSERT_TRUE((*channel)->Wait(Soon(absl::Seconds(60))).ok()) << (*channel)->status();
  EXPECT_EQ(back, sent);
  (*channel)->Close(absl::Seconds(10));
  EXPECT_EQ(peer.WaitForExit(), 0);
}

// What a survivor owes its owner: an answer within 5 s, and no memory or file left behind.
void ExpectSurvival(absl::Duration transfer_timeout, const std::string& reason) {
  const size_t files_before = OpenFiles();
  {
    const NcclUniqueId id = NewId();
    Peer peer(id, {"silent"});
    NcclChannelOptions options = OptionsFor(id, 0);
    options.transfer_timeout = transfer_timeout;
    auto channel = NcclChannel::Connect(options);
    ASSERT_TRUE(channel.ok()) << channel.status();
    auto bytes = std::make_shared<std::vector<uint8_t>>(64 << 20);
    Outcomes outcomes;
    for (uint64_t i = 0; i < 10; ++i) {
      ASSERT_TRUE((*channel)
                      ->Send({PieceOf(bytes.get())},
                             [bytes, record = outcomes.Record(i)](const absl::Status& status) {
                               record(status);
                             })
                      .ok());
    }
    absl::SleepFor(absl::Milliseconds(100));  // into the middle of the first
    EXPECT_THAT(outcomes.statuses(), SizeIs(0));
    peer.Kill();
    const absl::Status status = (*channel)->Wait(Soon(absl::Seconds(5)));
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("the peer"), HasSubstr(reason)));
    EXPECT_THAT(outcomes.statuses(), AllOf(SizeIs(10), Each(status)));
    EXPECT_EQ(bytes.use_count(), 1);
  }
  EXPECT_EQ(OpenFiles(), files_before);
}

TEST(NcclProcessTest, SurvivesAPeerThatIsKilled) {
  ExpectSurvival(absl::Seconds(30), "ncclRemoteError");
}

TEST(NcclProcessTest, SurvivesAPeerWhoseDeathNcclDoesNotNotice) {
  setenv("FAKE_NCCL_HANG_ON_PEER_DEATH", "1", 1);
  ExpectSurvival(absl::Seconds(1), "did not finish within 1s");
  unsetenv("FAKE_NCCL_HANG_ON_PEER_DEATH");
}

TEST(NcclProcessTest, AnAbortEndsAHang) {
  setenv("FAKE_NCCL_HANG_ON_PEER_DEATH", "1", 1);
  const NcclUniqueId id = NewId();
  Peer peer(id, {"silent"});
  auto channel = NcclChannel::Connect(OptionsFor(id, 0));
  unsetenv("FAKE_NCCL_HANG_ON_PEER_DEATH");
  ASSERT_TRUE(channel.ok()) << channel.status();
  std::vector<uint8_t> bytes(64 << 20);
  ASSERT_TRUE((*channel)->Send({PieceOf(&bytes)}, nullptr).ok());
  peer.Kill();
  EXPECT_EQ((*channel)->Wait(Soon(absl::Milliseconds(300))).code(),
            absl::StatusCode::kDeadlineExceeded);
  (*channel)->Abort("the stream of the peer broke");
  EXPECT_THAT(std::string((*channel)->Wait(Soon(absl::Seconds(5))).message()),
              HasSubstr("aborted: the stream of the peer broke"));
}

TEST(NcclProcessTest, NoticesThatAnIdlePeerDied) {
  const NcclUniqueId id = NewId();
  Peer peer(id, {"silent"});
  auto channel = NcclChannel::Connect(OptionsFor(id, 0));
  ASSERT_TRUE(channel.ok()) << channel.status();
  peer.Kill();
  for (int i = 0; i < 500 && (*channel)->status().ok(); ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_EQ((*channel)->status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace turbokv
