#include "client/share/fd_socket.h"

#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <fstream>
#include <optional>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/share/share_testing.h"

namespace turbokv::testing {
namespace {

using ::testing::HasSubstr;

const std::vector<uint8_t> kMessage = {1, 2, 3, 4};

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(FdListenerTest, RefusesPathsThatNoSocketCanHave) {
  const std::string long_path = "/tmp/" + std::string(103, 'x');
  const absl::Status status = FdListener::Listen(long_path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), HasSubstr("of 108 bytes: must have 1..107 bytes"));
  EXPECT_EQ(FdListener::Listen("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FdSocket::Connect(long_path, Soon()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(FdListener::Listen("/nowhere/at/all").status()), HasSubstr("/nowhere/at"));
}

TEST(FdListenerTest, MakesASocketForTheGroupAndRemovesIt) {
  SocketFolder folder;
  const std::string path = folder.Path("s");
  {
    auto listener = FdListener::Listen(path);
    ASSERT_TRUE(listener.ok()) << listener.status();
    struct stat file;
    ASSERT_EQ(lstat(path.c_str(), &file), 0);
    EXPECT_TRUE(S_ISSOCK(file.st_mode));
    EXPECT_EQ(file.st_mode & 07777, 0660u);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(FdListenerTest, ReplacesOnlyASocketThatNobodyListensOn) {
  SocketFolder folder;
  const std::string path = folder.Path("s");
  {
    const UniqueFd stale(socket(AF_UNIX, SOCK_SEQPACKET, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    ASSERT_EQ(bind(stale.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ASSERT_TRUE(std::filesystem::exists(path));
  auto first = FdListener::Listen(path);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(FdListener::Listen(path).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(FdSocket::Connect(path, Soon()).ok());
}

TEST(FdListenerTest, KeepsAFileThatIsNoSocket) {
  SocketFolder folder;
  const std::string path = folder.Path("precious");
  std::ofstream(path) << "data";
  const absl::Status status = FdListener::Listen(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(Message(status), HasSubstr("is no socket"));
  EXPECT_EQ(std::filesystem::file_size(path), 4);
}

TEST(FdListenerTest, LeavesASocketThatTookItsPlace) {
  SocketFolder folder;
  const std::string path = folder.Path("s");
  auto first = *FdListener::Listen(path);
  std::filesystem::remove(path);
  auto second = *FdListener::Listen(path);
  { const FdListener gone = std::move(first); }
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST(FdListenerTest, OfManyAtOnceOneListens) {
  SocketFolder folder;
  const std::string path = folder.Path("s");
  std::array<std::optional<FdListener>, 8> listeners;
  std::vector<std::thread> threads;
  for (auto& listener : listeners) {
    threads.emplace_back([&] {
      auto made = FdListener::Listen(path);
      if (made.ok()) listener.emplace(*std::move(made));
    });
  }
  for (std::thread& thread : threads) thread.join();
  int listening = 0;
  for (const auto& listener : listeners) listening += listener.has_value() ? 1 : 0;
  EXPECT_EQ(listening, 1);
}

TEST(FdSocketTest, ConnectsToNobody) {
  SocketFolder folder;
  const absl::Status status = FdSocket::Connect(folder.Path("s"), Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(status), HasSubstr(folder.Path("s")));
}

TEST(FdSocketTest, ConnectWaitsForABacklogOnlyUntilItsDeadline) {
  SocketFolder folder;
  auto listener = *FdListener::Listen(folder.Path("s"));
  std::vector<FdSocket> waiting;
  absl::Status status;
  while (status.ok() && waiting.size() < 1000) {
    auto socket = FdSocket::Connect(folder.Path("s"), absl::Now() + absl::Milliseconds(50));
    status = socket.status();
    if (socket.ok()) waiting.push_back(*std::move(socket));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(FdSocketTest, CarriesAMessageWithAndWithoutADescriptor) {
  auto [a, b] = SocketPair();
  std::array<uint8_t, 16> buffer;
  ASSERT_TRUE(a.Send(kMessage, -1, Soon()).ok());
  auto plain = b.ReceiveWithFd(absl::MakeSpan(buffer), Soon());
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->bytes, 4);
  EXPECT_EQ(buffer[3], 4);
  EXPECT_FALSE(plain->fd);

  const UniqueFd memory = FilledMemfd(4096, 7);
  ASSERT_TRUE(a.Send(kMessage, memory.get(), Soon()).ok());
  auto with_fd = b.ReceiveWithFd(absl::MakeSpan(buffer), Soon());
  ASSERT_TRUE(with_fd.ok()) << with_fd.status();
  uint8_t byte = 0;
  EXPECT_EQ(pread(with_fd->fd.get(), &byte, 1, 100), 1);
  EXPECT_EQ(byte, 7);
  EXPECT_NE(fcntl(with_fd->fd.get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(FdSocketTest, RefusesAndClosesSurplusDescriptors) {
  auto [a, b] = SocketPair();
  std::array<uint8_t, 16> buffer;
  const UniqueFd memory = FilledMemfd(4096, 7);
  const size_t before = OpenFds();
  for (const size_t count : {2, 3, 4, 5, 100, 253}) {
    ASSERT_TRUE(SendRaw(a.fd(), kMessage, std::vector<int>(count, memory.get())));
    const absl::Status status = b.ReceiveWithFd(absl::MakeSpan(buffer), Soon()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << count;
    EXPECT_THAT(Message(status), HasSubstr("more than 1 file descriptors"));
  }
  for (const size_t count : {1, 2, 253}) {
    ASSERT_TRUE(SendRaw(a.fd(), kMessage, std::vector<int>(count, memory.get())));
    EXPECT_EQ(b.Receive(absl::MakeSpan(buffer), Soon()).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(OpenFds(), before);
  ASSERT_TRUE(a.Send(kMessage, -1, Soon()).ok());
  EXPECT_TRUE(b.Receive(absl::MakeSpan(buffer), Soon()).ok()) << "the socket still works";
}

TEST(FdSocketTest, RefusesALongMessageWithItsDescriptor) {
  auto [a, b] = SocketPair();
  std::array<uint8_t, 3> buffer;
  const UniqueFd memory = FilledMemfd(4096, 7);
  const size_t before = OpenFds();
  ASSERT_TRUE(a.Send(kMessage, memory.get(), Soon()).ok());
  const absl::Status status = b.ReceiveWithFd(absl::MakeSpan(buffer), Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), HasSubstr("more than 3 bytes"));
  EXPECT_EQ(OpenFds(), before);
}

TEST(FdSocketTest, WaitsUntilTheDeadlineAndNoLonger) {
  auto [a, b] = SocketPair();
  std::array<uint8_t, 16> buffer;
  EXPECT_EQ(b.Receive(absl::MakeSpan(buffer), absl::Now() + absl::Milliseconds(20)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(b.Receive(absl::MakeSpan(buffer), absl::InfinitePast()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  absl::Status status;
  for (int i = 0; i < 100000 && status.ok(); ++i) status = a.Send(kMessage, -1, absl::Now());
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(FdSocketTest, TellsThatThePeerHasGone) {
  std::array<uint8_t, 16> buffer;
  auto pair = SocketPair();
  EXPECT_TRUE(pair.first.PeerAlive());
  std::thread closer([&] {
    absl::SleepFor(absl::Milliseconds(20));
    { const FdSocket gone = std::move(pair.second); }
  });
  EXPECT_EQ(pair.first.Receive(absl::MakeSpan(buffer), absl::InfiniteFuture()).status().code(),
            absl::StatusCode::kUnavailable);
  closer.join();
  EXPECT_FALSE(pair.first.PeerAlive());
  EXPECT_EQ(pair.first.Send(kMessage, -1, Soon()).code(), absl::StatusCode::kUnavailable);
}

TEST(FdSocketTest, DeliversTheLastWordOfAPeerThatDidNotListen) {
  std::array<uint8_t, 16> buffer;
  auto pair = SocketPair();
  ASSERT_TRUE(pair.first.Send(kMessage, -1, Soon()).ok());
  ASSERT_TRUE(pair.second.Send(kMessage, -1, Soon()).ok());
  { const FdSocket gone = std::move(pair.second); }
  EXPECT_EQ(*pair.first.Receive(absl::MakeSpan(buffer), Soon()), 4);
  EXPECT_EQ(pair.first.Receive(absl::MakeSpan(buffer), Soon()).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(FdSocketTest, KnowsWhatThePeerHasStillToReceive) {
  auto [a, b] = SocketPair();
  std::array<uint8_t, 16> buffer;
  EXPECT_FALSE(a.HasUnreceived());
  ASSERT_TRUE(a.Send(kMessage, -1, Soon()).ok());
  EXPECT_TRUE(a.HasUnreceived());
  ASSERT_TRUE(b.Receive(absl::MakeSpan(buffer), Soon()).ok());
  EXPECT_FALSE(a.HasUnreceived());
}

TEST(FdSocketTest, KnowsThePeersCredentials) {
  SocketFolder folder;
  auto listener = *FdListener::Listen(folder.Path("s"));
  auto client = *FdSocket::Connect(folder.Path("s"), Soon());
  auto server = listener.Accept();
  ASSERT_TRUE(server.ok());
  const auto peer = server->Peer();
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer->pid, getpid());
  EXPECT_EQ(peer->uid, getuid());
  EXPECT_EQ(peer->gid, getgid());
}

}  // namespace
}  // namespace turbokv::testing
