// The client's session against servers that do what they should not.
#include "client/share/share_session.h"

#include <array>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/share/share_testing.h"

namespace turbokv::testing {
namespace {

using ::testing::HasSubstr;

struct RawReply {
  std::vector<uint8_t> bytes;
  std::vector<int> fds;
};

// Answers each request of one connection with the next of `replies`, then closes.
class ScriptedServer {
 public:
  explicit ScriptedServer(std::vector<RawReply> replies)
      : listener_(*FdListener::Listen(folder_.Path("s"))),
        thread_([this, replies = std::move(replies)] { Serve(replies); }) {}
  ~ScriptedServer() { thread_.join(); }

  ShareSessionOptions options() const {
    return {.path = folder_.Path("s"), .request_timeout = absl::Seconds(10)};
  }

 private:
  void Serve(const std::vector<RawReply>& replies) {
    absl::StatusOr<FdSocket> socket;
    ASSERT_TRUE(Eventually([&] {
      auto accepted = listener_.Accept();
      if (!accepted.ok()) return false;
      socket = std::move(accepted);
      return true;
    }));
    std::array<uint8_t, kMaxShareMessageBytes> buffer;
    for (const RawReply& reply : replies) {
      if (!socket->Receive(absl::MakeSpan(buffer), Soon()).ok()) return;
      if (!reply.bytes.empty()) {
        ASSERT_TRUE(SendRaw(socket->fd(), reply.bytes, reply.fds));
      } else {
        // Says nothing until the client has had enough.
        EXPECT_TRUE(Eventually([&] { return !socket->PeerAlive(); }));
      }
    }
  }

  SocketFolder folder_;
  FdListener listener_;
  std::thread thread_;
};

const RawReply kWelcome = {EncodeHelloReply(uint64_t{5}), {}};

PlacedSlab Slab(ShareKind kind) {
  PlacedSlab slab;
  slab.memory.kind = kind;
  slab.geometry = {4096, 1};
  return slab;
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(ShareSessionTest, RefusesNamesBeforeConnecting) {
  EXPECT_EQ(ShareSession::Connect({.path = "/nowhere", .identity = {"a b", "c"}}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ShareSessionTest, AGreetingThatMakesNoSenseIsAnError) {
  const UniqueFd memory = FilledMemfd(4096, 1);
  const std::vector<RawReply> greetings = {
      {EncodeHelloReply(uint64_t{0}), {}},
      {EncodeHelloReply(uint64_t{5}), {memory.get()}},
      {EncodeHelloReply(uint64_t{5}), {memory.get(), memory.get()}},
      {EncodeMapSlabReply(Slab(ShareKind::kMemfd)), {}},
      {{1, 2, 3}, {}},
      {std::vector<uint8_t>(1000, 7), {}},
  };
  const size_t before = OpenFds();
  for (const RawReply& greeting : greetings) {
    ScriptedServer server({greeting});
    EXPECT_EQ(ShareSession::Connect(server.options()).status().code(), absl::StatusCode::kInternal);
  }
  EXPECT_EQ(OpenFds(), before);
}

TEST(ShareSessionTest, ASilentServerIsLeftAfterTheTimeout) {
  ScriptedServer server({RawReply{}});
  ShareSessionOptions options = server.options();
  options.request_timeout = absl::Milliseconds(50);
  EXPECT_EQ(ShareSession::Connect(options).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(ShareSessionTest, AServerThatClosesIsUnavailable) {
  ScriptedServer server({kWelcome});
  auto session = ShareSession::Connect(server.options());
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_EQ((*session)->session_id(), 5);
  EXPECT_EQ((*session)->MapSlab(1, 2, 3).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE((*session)->alive());
}

TEST(ShareSessionTest, MemoryAndDescriptorsMustMatch) {
  const UniqueFd memory = FilledMemfd(4096, 1);
  const std::vector<std::pair<RawReply, std::string>> replies = {
      {{EncodeMapSlabReply(Slab(ShareKind::kMemfd)), {}}, "kind 1 without a descriptor"},
      {{EncodeMapSlabReply(Slab(ShareKind::kCudaFd)), {}}, "kind 2 without a descriptor"},
      {{EncodeMapSlabReply(Slab(ShareKind::kCudaIpc)), {memory.get()}}, "kind 3 with a descriptor"},
      {{EncodeMapSlabReply(Slab(ShareKind::kMemfd)), {memory.get(), memory.get()}}, "more than 1"},
      {{EncodeMapSlabReply(Slab(ShareKind::kNone)), {}}, "kind 0"},
      {{EncodeHelloReply(uint64_t{5}), {}}, "type 2 instead of 4"},
  };
  const size_t before = OpenFds();
  for (const auto& [reply, text] : replies) {
    ScriptedServer server({kWelcome, reply});
    auto session = ShareSession::Connect(server.options());
    ASSERT_TRUE(session.ok()) << session.status();
    const absl::Status status = (*session)->MapSlab(1, 2, 3).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_THAT(Message(status), HasSubstr(text));
    EXPECT_EQ((*session)->MapSlab(1, 2, 3).status().code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_EQ(OpenFds(), before);
}

TEST(ShareSessionTest, StagingThatIsNoneIsAnError) {
  const StagingGeometry geometry = {4096, 1};
  const UniqueFd unsealed = FilledMemfd(8192, 1, 0);
  const UniqueFd other = FilledMemfd(8192, 1);
  const std::vector<RawReply> replies = {
      {EncodeOpenStagingReply(geometry), {}},
      {EncodeOpenStagingReply(geometry), {unsealed.get()}},
      {EncodeOpenStagingReply(geometry), {other.get()}},
      {EncodeOpenStagingReply(StagingGeometry{4096, 2}), {other.get()}},
      {EncodeOpenStagingReply(StagingGeometry{~uint64_t{0}, 256}), {other.get()}},
  };
  const size_t before = OpenFds();
  for (const RawReply& reply : replies) {
    ScriptedServer server({kWelcome, reply});
    auto session = ShareSession::Connect(server.options());
    ASSERT_TRUE(session.ok()) << session.status();
    const absl::Status status = (*session)->OpenStaging(geometry).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
  }
  EXPECT_EQ(OpenFds(), before);
}

}  // namespace
}  // namespace turbokv::testing
