#include "tests/fakes/fake_nccl/fake_communicator.h"

#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "tests/fakes/fake_nccl/fake_socket.h"

namespace turbokv::fake_nccl {
namespace {

constexpr auto kLaunchDelay = std::chrono::microseconds(50);
constexpr auto kIdlePoll = std::chrono::milliseconds(10);
constexpr uint64_t kGoodbye = ~uint64_t{0};

struct Hello {
  uint64_t magic = 0x6c63636e656b6166;
  uint64_t rank = 0;
};

bool HangOnPeerDeath() {
  const char* text = std::getenv("FAKE_NCCL_HANG_ON_PEER_DEATH");
  return text != nullptr && std::string(text) == "1";
}

}  // namespace

Communicator::Communicator(int rank, int listener, std::string name)
    : rank_(rank),
      listener_(listener),
      name_(std::move(name)),
      hang_on_peer_death_(HangOnPeerDeath()) {
  thread_ = std::thread([this] { Run(); });
}

Communicator::~Communicator() {
  abort_ = true;
  wake_.notify_all();
  thread_.join();
  // Kernels that were launched end without having done their work.
  for (const Batch& batch : queue_) ++batch.stream->finished;
  if (socket_ >= 0) close(socket_);
  if (listener_ >= 0) close(listener_);
}

void Communicator::Launch(Batch batch) {
  launching_.push_back(std::move(batch));
  launch_at_ = std::chrono::steady_clock::now() + kLaunchDelay;
}

void Communicator::Finalize() {
  state_ = kNcclInProgress;
  std::lock_guard<std::mutex> lock(mutex_);
  finalize_ = true;
  wake_.notify_all();
}

NcclResult Communicator::State() {
  const auto state = static_cast<NcclResult>(state_.load());
  if (state != kNcclSuccess || launching_.empty()) return state;
  if (std::chrono::steady_clock::now() < launch_at_) return kNcclInProgress;
  std::lock_guard<std::mutex> lock(mutex_);
  for (Batch& batch : launching_) {
    ++batch.stream->launched;
    queue_.push_back(std::move(batch));
  }
  launching_.clear();
  wake_.notify_all();
  return kNcclSuccess;
}

bool Communicator::Connect() {
  socket_ = rank_ == 0 ? Accept(listener_, abort_) : ConnectTo(name_, abort_);
  if (socket_ < 0) return false;
  Hello mine;
  mine.rank = static_cast<uint64_t>(rank_);
  Hello peers;
  if (WriteAll(socket_, &mine, sizeof(mine), abort_) != IoResult::kDone ||
      ReadAll(socket_, &peers, sizeof(peers), abort_) != IoResult::kDone) {
    PeerGone();
    return false;
  }
  if (peers.magic != mine.magic || peers.rank == mine.rank) {
    Fail(kNcclInvalidUsage, "both ends have rank " + std::to_string(rank_));
    return false;
  }
  state_ = kNcclSuccess;
  return true;
}

void Communicator::Run() {
  if (!Connect()) return;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!abort_) {
    if (queue_.empty() && finalize_) {
      lock.unlock();
      SayGoodbye();
      return;
    }
    if (queue_.empty()) {
      wake_.wait_for(lock, kIdlePoll);
      if (queue_.empty() && !finalize_ && PeerHasClosed(socket_)) {
        PeerGone();
        return;
      }
      continue;
    }
    const Batch batch = queue_.front();
    lock.unlock();
    bool alive = true;
    for (const Operation& operation : batch.operations) {
      alive = Transfer(*batch.stream, operation);
      if (!alive) break;
    }
    lock.lock();
    if (!alive) return;  // like a kernel that waits for its peer until it is aborted
    queue_.pop_front();
    ++batch.stream->finished;
  }
}

bool Communicator::Transfer(const FakeStream& stream, const Operation& operation) {
  void* const memory = stream.translate == nullptr
                           ? operation.buffer
                           : stream.translate(stream.device, operation.buffer, operation.bytes);
  uint64_t bytes = operation.bytes;
  IoResult result = operation.send ? WriteAll(socket_, &bytes, sizeof(bytes), abort_)
                                   : ReadAll(socket_, &bytes, sizeof(bytes), abort_);
  if (result == IoResult::kDone && bytes != operation.bytes) {
    Fail(kNcclInvalidUsage, "a send of " + std::to_string(bytes) + " bytes meets a receive of " +
                                std::to_string(operation.bytes));
    return false;
  }
  if (result == IoResult::kDone) {
    result = operation.send ? WriteAll(socket_, memory, operation.bytes, abort_)
                            : ReadAll(socket_, memory, operation.bytes, abort_);
  }
  if (result == IoResult::kPeerGone) PeerGone();
  return result == IoResult::kDone;
}

void Communicator::SayGoodbye() {
  uint64_t word = kGoodbye;
  if (WriteAll(socket_, &word, sizeof(word), abort_) == IoResult::kDone &&
      ReadAll(socket_, &word, sizeof(word), abort_) == IoResult::kDone && word == kGoodbye) {
    state_ = kNcclSuccess;
  } else {
    PeerGone();
  }
}

void Communicator::Fail(NcclResult result, const std::string& message) {
  last_error_ = message;
  state_ = result;
}

void Communicator::PeerGone() {
  if (!hang_on_peer_death_) Fail(kNcclRemoteError, "the peer closed its connection");
}

}  // namespace turbokv::fake_nccl
