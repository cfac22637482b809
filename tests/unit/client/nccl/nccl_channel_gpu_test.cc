// A channel between two GPUs, each in a process of its own, over the real NCCL. Skipped, with the
// reason, where there are fewer than two GPUs or no NCCL.
//
// The peer is this binary again: --peer ID_HEX echo BYTES PIECES [BYTES PIECES...], or silent.
#include <cuda_runtime_api.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/nccl/cuda_stream_ops.h"
#include "client/nccl/nccl_channel.h"
#include "gtest/gtest.h"

extern char** environ;

namespace turbokv {
namespace {

constexpr size_t kMaxBytes = size_t{256} << 20;

struct Message {
  size_t bytes = 0;
  size_t pieces = 1;
};

// `message` cut into pieces that lie in reverse order, the first as large as what is left over.
std::vector<NcclPiece> Cut(uint8_t* device, const Message& message) {
  std::vector<NcclPiece> pieces;
  const size_t each = message.bytes / message.pieces;
  size_t end = message.bytes;
  for (size_t i = 0; i < message.pieces; ++i) {
    const size_t bytes = i == 0 ? message.bytes - each * (message.pieces - 1) : each;
    end -= bytes;
    pieces.push_back({device + end, bytes});
  }
  return pieces;
}

struct DeviceMemory {
  explicit DeviceMemory(int device) {
    EXPECT_EQ(cudaSetDevice(device), cudaSuccess);
    EXPECT_EQ(cudaMalloc(&data, kMaxBytes), cudaSuccess);
  }
  ~DeviceMemory() { cudaFree(data); }
  uint8_t* bytes() const { return static_cast<uint8_t*>(data); }
  void* data = nullptr;
};

NcclChannelOptions Options(std::shared_ptr<const NcclApi> api, const NcclUniqueId& id, int rank) {
  NcclChannelOptions options;
  options.api = std::move(api);
  options.streams = CudaStreamOps();
  options.unique_id = id;
  options.rank = rank;
  options.device_index = rank;
  options.peer = rank == 0 ? "the peer" : "the test";
  return options;
}

int PeerMain(int argc, char** argv) {
  NcclUniqueId id = {};
  const std::string id_bytes = absl::HexStringToBytes(argv[2]);
  if (id_bytes.size() != sizeof(id.bytes)) return 2;
  id_bytes.copy(id.bytes, sizeof(id.bytes));
  const auto api = NcclApi::Load();
  if (!api.ok()) return 2;
  DeviceMemory memory(1);
  const auto channel = NcclChannel::Connect(Options(*api, id, 1));
  if (!channel.ok()) {
    std::fprintf(stderr, "peer: %s\n", channel.status().ToString().c_str());
    return 1;
  }
  if (std::string(argv[3]) == "silent") {
    while (true) pause();
  }
  for (int i = 4; i + 1 < argc; i += 2) {
    const Message message = {static_cast<size_t>(std::atoll(argv[i])),
                             static_cast<size_t>(std::atoll(argv[i + 1]))};
    const std::vector<NcclPiece> pieces = Cut(memory.bytes(), message);
    absl::Status status = (*channel)->Receive(pieces, nullptr);
    if (status.ok()) status = (*channel)->Send(pieces, nullptr);
    if (status.ok()) status = (*channel)->Wait(absl::Now() + absl::Seconds(60));
    if (status.ok()) continue;
    std::fprintf(stderr, "peer: %s\n", status.ToString().c_str());
    return 1;
  }
  (*channel)->Close(absl::Seconds(10));
  return 0;
}

class NcclGpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int gpus = 0;
    const cudaError_t error = cudaGetDeviceCount(&gpus);
    if (error != cudaSuccess) GTEST_SKIP() << "no GPU here: " << cudaGetErrorString(error);
    if (gpus < 2) GTEST_SKIP() << "two GPUs are needed; here: " << gpus;
    auto api = NcclApi::Load();
    if (!api.ok()) GTEST_SKIP() << api.status();
    api_ = *std::move(api);
    std::printf("NCCL %s, %s\n", api_->version_text().c_str(), api_->path().c_str());
  }
  void TearDown() override {
    if (peer_ > 0) KillPeer();
  }

  void StartPeer(std::vector<std::string> mode) {
    id_ = api_->NewUniqueId().value();
    std::vector<std::string> words = {
        "/proc/self/exe", "--peer",
        absl::BytesToHexString(absl::string_view(id_.bytes, sizeof(id_.bytes)))};
    words.insert(words.end(), mode.begin(), mode.end());
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    ASSERT_EQ(posix_spawn(&peer_, arguments[0], nullptr, nullptr, arguments.data(), environ), 0);
  }
  void KillPeer() {
    kill(peer_, SIGKILL);
    WaitForPeer();
  }
  int WaitForPeer() {
    int status = 0;
    waitpid(std::exchange(peer_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  void ExpectEcho(const std::vector<Message>& messages) {
    std::vector<std::string> mode = {"echo"};
    for (const Message& message : messages) {
      mode.push_back(absl::StrCat(message.bytes));
      mode.push_back(absl::StrCat(message.pieces));
    }
    StartPeer(mode);
    DeviceMemory memory(0);
    const auto channel = NcclChannel::Connect(Options(api_, id_, 0));
    ASSERT_TRUE(channel.ok()) << channel.status();
    for (const Message& message : messages) {
      SCOPED_TRACE(absl::StrCat(message.bytes, " bytes in ", message.pieces, " pieces"));
      std::vector<uint8_t> sent(message.bytes);
      for (size_t i = 0; i < sent.size(); ++i) {
        sent[i] = static_cast<uint8_t>((i * 2654435761u + message.pieces) >> 9);
      }
      ASSERT_EQ(cudaMemcpy(memory.data, sent.data(), sent.size(), cudaMemcpyHostToDevice),
                cudaSuccess);
      const std::vector<NcclPiece> pieces = Cut(memory.bytes(), message);
      ASSERT_TRUE((*channel)->Send(pieces, nullptr).ok());
      ASSERT_TRUE((*channel)->Wait(absl::Now() + absl::Seconds(60)).ok()) << (*channel)->status();
      ASSERT_EQ(cudaMemset(memory.data, 0xee, message.bytes), cudaSuccess);
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      ASSERT_TRUE((*channel)->Receive(pieces, nullptr).ok());
      ASSERT_TRUE((*channel)->Wait(absl::Now() + absl::Seconds(60)).ok()) << (*channel)->status();
      std::vector<uint8_t> back(message.bytes);
      ASSERT_EQ(cudaMemcpy(back.data(), memory.data, back.size(), cudaMemcpyDeviceToHost),
                cudaSuccess);
      ASSERT_TRUE(back == sent);
    }
    (*channel)->Close(absl::Seconds(10));
    EXPECT_EQ((*channel)->status().code(), absl::StatusCode::kCancelled) << (*channel)->status();
    EXPECT_EQ(WaitForPeer(), 0);
  }

  std::shared_ptr<const NcclApi> api_;
  NcclUniqueId id_ = {};
  pid_t peer_ = -1;
};

TEST_F(NcclGpuTest, MovesMessagesOfAnySize) {
  std::vector<Message> messages;
  for (size_t bytes = 1; bytes <= kMaxBytes; bytes *= 4) {
    messages.push_back({bytes});
    if (bytes > 4) messages.push_back({bytes - 3});
  }
  ExpectEcho(messages);
}

TEST_F(NcclGpuTest, MovesScatteredPieces) {
  ExpectEcho({{1000, 7}, {1 << 20, 64}, {(64 << 20) + 13, 1024}, {64 << 20, 4096}});
}

// Between GPUs of one host nothing tells NCCL that a process died: an abort, as the gRPC stream
// causes it, or the timeout ends the wait.
TEST_F(NcclGpuTest, SurvivesAPeerThatIsKilled) {
  for (const bool abort : {true, false}) {
    SCOPED_TRACE(abort ? "abort" : "timeout");
    StartPeer({"silent"});
    DeviceMemory memory(0);
    NcclChannelOptions options = Options(api_, id_, 0);
    options.transfer_timeout = abort ? absl::Seconds(60) : absl::Seconds(2);
    const auto channel = NcclChannel::Connect(options);
    ASSERT_TRUE(channel.ok()) << channel.status();
    std::atomic<int> failed{0};
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE((*channel)
                      ->Send({{memory.bytes(), kMaxBytes}},
                             [&failed](const absl::Status& status) {
                               EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
                               ++failed;
                             })
                      .ok());
    }
    absl::SleepFor(absl::Milliseconds(500));
    KillPeer();
    const absl::Time killed = absl::Now();
    if (abort) (*channel)->Abort("the peer was killed");
    const absl::Status status = (*channel)->Wait(killed + absl::Seconds(10));
    std::printf("%s after %s\n", status.ToString().c_str(),
                absl::FormatDuration(absl::Now() - killed).c_str());
    EXPECT_LT(absl::Now() - killed, absl::Seconds(5));
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(failed, 3);
    // The device works on.
    EXPECT_EQ(cudaMemset(memory.data, 0, kMaxBytes), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }
}

}  // namespace
}  // namespace turbokv

int main(int argc, char** argv) {
  if (argc >= 4 && std::string(argv[1]) == "--peer") return turbokv::PeerMain(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
